"""Every write to one kind of object while something else happens, as a watch tells it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dra_driver.kube.interface import ApiError, EventType, KubeApi, Resource, WatchEvent


@dataclass(slots=True)
class Recording:
    """``events`` grows while the recording runs; read it after ``settle`` or after the end."""

    events: list[WatchEvent] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, event: WatchEvent) -> None:
        with self._lock:
            self.events.append(event)

    def of(self, kind: EventType) -> list[str]:
        """Names of the objects with events of that type."""
        with self._lock:
            return [event.object["metadata"]["name"] for event in self.events if event.type is kind]

    def describe(self) -> list[str]:
        """``MODIFIED gpu-node-0 (resourceVersion 812)``, in order."""
        with self._lock:
            return [
                f"{event.type} {event.object['metadata']['name']}"
                f" (resourceVersion {event.object['metadata']['resourceVersion']})"
                for event in self.events
            ]


@contextlib.contextmanager
def recording(
    api: KubeApi, resource: Resource, namespace: str | None = None, *, field_selector: str = ""
) -> Iterator[Recording]:
    """Records from now to the end of the context. A watch that breaks is an error at the end, never a silent gap."""
    found = Recording()
    with following(api, resource, found.add, namespace, field_selector=field_selector):
        yield found


@contextlib.contextmanager
def following(
    api: KubeApi,
    resource: Resource,
    see: Callable[[WatchEvent], None],
    namespace: str | None = None,
    *,
    field_selector: str = "",
) -> Iterator[None]:
    """``see`` is called, on a thread of its own, with every event from now to the end of the context.

    Raises AssertionError at the end when the watch broke: events may have been missed.
    """
    start = api.list(resource, namespace, field_selector=field_selector).resource_version
    problems: list[str] = []
    stopping = threading.Event()
    watch = api.watch(resource, namespace, resource_version=start, field_selector=field_selector, timeout_seconds=3600)

    def follow() -> None:
        try:
            with watch as events:
                for event in events:
                    if event.type is not EventType.BOOKMARK:
                        see(event)
        except ApiError as error:
            problems.append(str(error))
            return
        if not stopping.is_set():
            problems.append("the API server ended the watch")

    thread = threading.Thread(target=follow, name=f"watch-{resource.plural}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        close: Callable[[], None] = getattr(watch, "close", lambda: None)
        close()
        thread.join(10)
    if problems:
        raise AssertionError(f"the watch of {resource.plural} broke, so events may have been missed: {problems[0]}")
