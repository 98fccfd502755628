"""Watches over the store's history: order, selectors, bookmarks, timeouts, and an end when history was forgotten.

Behaviour follows the real server's watch cache (k8s.io/apiserver, pkg/storage/cacher): an object that leaves the
selector is DELETED, one that enters it is ADDED; a bookmark comes every minute and two seconds before the timeout.
"""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType

from dra_driver.kube.interface import EventType, Obj, Resource, WatchEvent
from dra_driver.kube.statuses import expired
from dra_driver.simulation.store.patching import clone
from dra_driver.simulation.store.selectors import Matcher
from dra_driver.simulation.store.store import Change, Store, type_key

_BOOKMARK_SECONDS = 60.0
_LAST_BOOKMARK_SECONDS = 2.0
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class Watches:
    """The open watches, so that they can be ended from outside: a server that stops, a test of reconnecting."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: set[Watch] = set()

    def add(self, watch: Watch) -> None:
        with self._store.lock:
            self._open.add(watch)

    def discard(self, watch: Watch) -> None:
        with self._store.lock:
            self._open.discard(watch)

    def __len__(self) -> int:
        with self._store.lock:
            return len(self._open)

    def close_all(self) -> None:
        with self._store.lock:
            for watch in list(self._open):
                watch.close()


class Watch:
    """A context manager and iterator in one. ``close`` may be called from any thread and wakes a waiting iterator."""

    def __init__(
        self,
        store: Store,
        watches: Watches,
        resource: Resource,
        *,
        namespace: str | None,
        matcher: Matcher | None,
        since: int,
        timeout_seconds: float,
        initial: list[Obj] | None,
        bookmarks: bool,
    ) -> None:
        """``initial``: objects that come as ADDED first, followed by a bookmark that ends them."""
        self._store = store
        self._watches = watches
        self._resource = resource
        self._kind = type_key(resource)
        self._namespace = namespace
        self._matcher = matcher
        self._position = since
        self._timeout = timeout_seconds
        self._deadline = 0.0
        self._next_bookmark = 0.0
        self._pending: deque[WatchEvent] = deque()
        self._closed = True
        for obj in initial or []:
            self._pending.append(WatchEvent(EventType.ADDED, obj))
        self._bookmarks = bookmarks
        if initial is not None and bookmarks:
            self._pending.append(self._bookmark({INITIAL_EVENTS_END: "true"}))

    def __enter__(self) -> Watch:
        now = time.monotonic()
        self._deadline = now + self._timeout
        first = min(now + _BOOKMARK_SECONDS, self._last_bookmark())
        self._next_bookmark = first if self._bookmarks else self._deadline + 1.0
        self._closed = False
        self._watches.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._store.lock:
            self._closed = True
            self._store.wake(self._kind)
        self._watches.discard(self)

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> WatchEvent:
        event = self._next()
        return WatchEvent(event.type, clone(event.object))

    def _next(self) -> WatchEvent:
        with self._store.lock:
            while not self._closed:
                if self._pending:
                    return self._pending.popleft()
                self._fetch()
                if self._pending:
                    continue
                now = time.monotonic()
                if now >= self._deadline:
                    break
                if now >= self._next_bookmark:
                    at_end = now >= self._last_bookmark()
                    self._next_bookmark = (
                        self._deadline + 1.0 if at_end else min(now + _BOOKMARK_SECONDS, self._last_bookmark())
                    )
                    return self._bookmark({})
                self._store.wait(self._kind, min(self._deadline, self._next_bookmark) - now)
        self.close()
        raise StopIteration

    def _last_bookmark(self) -> float:
        return self._deadline - min(_LAST_BOOKMARK_SECONDS, self._timeout / 2)

    def _fetch(self) -> None:
        oldest = self._store.oldest(self._kind)
        if self._position < oldest:
            self._closed = True
            raise expired(f"too old resource version: {self._position} ({oldest})")
        for change in self._store.changes_after(self._kind, self._position):
            event = self._visible(change)
            if event is not None:
                self._pending.append(event)
        self._position = max(self._position, self._store.version)

    def _visible(self, change: Change) -> WatchEvent | None:
        """The change as this watch sees it through its namespace and selectors."""
        if self._namespace is not None and change.object["metadata"].get("namespace") != self._namespace:
            return None
        if self._matcher is None:
            return WatchEvent(change.type, change.object)
        before = change.previous is not None and self._matcher(change.previous)
        after = change.type is not EventType.DELETED and self._matcher(change.object)
        if after:
            return WatchEvent(EventType.MODIFIED if before else EventType.ADDED, change.object)
        if before and change.previous is not None:
            version = change.object["metadata"]["resourceVersion"]
            last = {**change.previous, "metadata": {**change.previous["metadata"], "resourceVersion": version}}
            return WatchEvent(EventType.DELETED, last)
        return None

    def _bookmark(self, annotations: dict[str, str]) -> WatchEvent:
        metadata: Obj = {"resourceVersion": str(self._position), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        obj: Obj = {"kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": metadata}
        return WatchEvent(EventType.BOOKMARK, obj)
