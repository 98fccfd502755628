"""Keeps a local copy of one resource: list, then watch, for as long as it runs, whatever the server does.

What it guards against, each measured on other informers: a server that closes every watch at once (pauses grow), a
watch that goes silent (the KubeApi ends it, see ``WATCH_SECONDS``), history that is gone (410 as a status or as an
event: list again, with a pause), an object without a name, a callback that raises. It asks for pages and bookmarks,
and hands out raw dictionaries. It relies on KubeApi for time limits of single calls.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dra_driver.kube.backoff import Backoff
from dra_driver.kube.cache import IndexFunction, Store, key_of, same_version
from dra_driver.kube.interface import ApiError, EventType, Expired, KubeApi, Obj, Resource, WatchEvent
from dra_driver.observability.loops import Loop

logger = logging.getLogger(__name__)

OnAnswer = Callable[[ApiError | None], None]
"""Called with the error when lists and watches begin to fail in this way, and with None when a list is in the store
after that, or for the first time."""

OnChange = Callable[[Obj | None, Obj | None], None]
"""Called with (old, new) after the store holds the new state; one of them is None at a creation or a deletion."""

WATCH_SECONDS = 290
"""The server ends a watch after this time; a KubeApi over a network gives up reading a little later."""

# A watch that ends sooner than this is a failure, however politely it ended.
_SHORT_WATCH_SECONDS = 1.0
_PAGE_SIZE = 500
_GOOD = 200
# Beyond the time that a silent watch may take. A KubeApi over a network gives up sooner.
_LIMIT_SECONDS = 60.0


class Reflector:
    """One thread named ``reflector-<plural>`` between start and stop.

    ``transform`` may cut objects down before they are stored (it gets a fresh object and returns it or another one).
    ``on_change`` and ``on_answer`` run on the reflector's thread: they should do little more than queue a key.
    """

    def __init__(
        self,
        api: KubeApi,
        resource: Resource,
        on_change: OnChange | None = None,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        indexes: Mapping[str, IndexFunction] | None = None,
        transform: Callable[[Obj], Obj] | None = None,
        on_answer: OnAnswer | None = None,
        page_size: int = _PAGE_SIZE,
        watch_seconds: int = WATCH_SECONDS,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._resource = resource
        self._on_change = on_change
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._transform = transform
        self._on_answer = on_answer
        self._answered: int | None = None  # the code of the error that was told; 200 for none
        self._page_size = page_size
        self._watch_seconds = watch_seconds
        self._backoff = backoff or Backoff()
        self._clock = clock
        self.store = Store(indexes)
        self.has_synced = threading.Event()
        self.relists = 0
        self.failures = 0
        self._last_heard = -math.inf
        self._version = ""  # the resourceVersion to watch from; empty means list first
        self._open_lock = threading.Lock()
        self._open_watch: object | None = None
        self.loop = Loop(
            f"reflector-{self.name}",
            self._round,
            limit=watch_seconds + _LIMIT_SECONDS,
            doing=f"a list and watch of {self.name}",
        )

    @property
    def name(self) -> str:
        return self._resource.plural

    def __len__(self) -> int:
        return len(self.store)

    def last_event_age(self) -> float:
        """Seconds since the server last answered with a list, an event or a bookmark; infinite before the first."""
        return self._clock() - self._last_heard

    def start(self) -> None:
        self.loop.start()

    def stop(self, timeout: float = 2.0) -> None:
        """1. end the thread's waits; 2. close the watch it reads; 3. join it, for at most ``timeout`` seconds."""
        self.loop.request_stop()
        with self._open_lock:
            # The Protocol promises close() only "where it has one"; without it the thread ends with the next event.
            close = getattr(self._open_watch, "close", None)
        if close is not None:
            close()
        if not self.loop.join(timeout):
            logger.warning("%s still reads %.1f s after stop", self.loop.name, timeout)

    def wait_for_sync(self, timeout: float | None = None) -> bool:
        """Wait until the first list is in the store and its callbacks were made."""
        return self.has_synced.wait(timeout)

    # -- the reflector's thread -------------------------------------------------------------------------------------

    def _round(self) -> float:
        began = self._clock()
        ended_well = self._session()
        lasted = self._clock() - began
        self._backoff.ran_for(lasted)
        return 0.0 if ended_well and lasted >= _SHORT_WATCH_SECONDS else self._backoff.next_delay()

    def _session(self) -> bool:
        """List if needed, then watch until the watch ends. True when it ended as watches do."""
        try:
            if not self._version:
                self._list()
            self._watch()
        except Expired as error:
            self.failures += 1
            logger.info("%s: history is gone, listing again: %s", self.name, error)
            self._version = ""
            return False
        except ApiError as error:
            if self.loop.stopping:
                return False
            self.failures += 1
            logger.warning("%s: list or watch failed, trying again: %s", self.name, error)
            self._tell_answer(error)
            if error.code not in (0, 429):
                # Neither the network nor load: perhaps the version itself is what the server cannot take.
                self._version = ""
            return False
        except Exception:
            # An answer that breaks us; a fresh list mends the store.
            self.failures += 1
            logger.exception("%s: unexpected answer, listing again", self.name)
            self.loop.count_error()
            self._version = ""
            return False
        return True

    def _list(self) -> None:
        objects: list[Obj] = []
        token = ""
        while True:
            page = self._api.list(
                self._resource,
                self._namespace,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                limit=self._page_size,
                continue_token=token,
            )
            self._last_heard = self._clock()
            self.loop.beat()
            objects.extend(self._usable(page.items))
            token = page.continue_token
            if not token or self.loop.stopping:
                break
        if self.loop.stopping:
            return
        self.relists += 1
        changes = self.store.replace(objects)
        self._version = page.resource_version
        for old, new in changes:
            self._notify(old, new)
        self.has_synced.set()
        self._tell_answer(None)

    def _watch(self) -> None:
        if self.loop.stopping:
            return
        manager = self._api.watch(
            self._resource,
            self._namespace,
            resource_version=self._version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            timeout_seconds=self._watch_seconds,
        )
        with manager as events:
            with self._open_lock:
                self._open_watch = manager
            try:
                # stop() either saw the open watch and closed it, or set the flag before this look at it.
                if not self.loop.stopping:
                    self._follow(events)
            finally:
                with self._open_lock:
                    self._open_watch = None

    def _follow(self, events: Iterator[WatchEvent]) -> None:
        for event in events:
            if self.loop.stopping:
                return
            self._last_heard = self._clock()
            self.loop.beat()
            self._apply(event)

    def _apply(self, event: WatchEvent) -> None:
        version = _version_of(event.object)
        if event.type is not EventType.BOOKMARK:
            for obj in self._usable([event.object]):
                if event.type is EventType.DELETED:
                    self._deleted(obj)
                else:
                    self._changed(obj)
        if version:
            self._version = version

    def _changed(self, obj: Obj) -> None:
        old = self.store.put(obj)
        if old is None or not same_version(old, obj):
            self._notify(old, obj)

    def _deleted(self, obj: Obj) -> None:
        # The event's object is the last state, with the resourceVersion of the deletion; that is what callbacks want.
        if self.store.remove(key_of(obj)) is not None:
            self._notify(obj, None)

    def _usable(self, objects: list[Obj]) -> Iterator[Obj]:
        """The objects that have a name, transformed. One that breaks is logged and left out."""
        for obj in objects:
            try:
                key_of(obj)
                yield self._transform(obj) if self._transform else obj
            except (KeyError, TypeError, AttributeError, ValueError):
                self.failures += 1
                logger.exception("%s: the server sent an object that cannot be used; ignored", self.name)

    def _notify(self, old: Obj | None, new: Obj | None) -> None:
        on_change = self._on_change
        if on_change is not None:
            self._call(lambda: on_change(old, new))

    def _tell_answer(self, error: ApiError | None) -> None:
        code = _GOOD if error is None else error.code
        on_answer, news = self._on_answer, code != self._answered
        self._answered = code
        if on_answer is not None and news:
            self._call(lambda: on_answer(error))

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            # The callback is another component's code; its fault must not stop this cache.
            logger.exception("%s: a callback failed", self.name)
            self.loop.count_error()


def _version_of(obj: Any) -> str:
    metadata = obj.get("metadata") if isinstance(obj, dict) else None
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else ""
