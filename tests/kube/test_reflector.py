"""The reflector against a scripted server: every list and watch answer is one step of a script."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from dra_driver.kube.backoff import Backoff
from dra_driver.kube.interface import (
    NODES,
    ApiError,
    EventType,
    Expired,
    Forbidden,
    KubeApi,
    ListPage,
    Obj,
    Unavailable,
    WatchEvent,
)
from dra_driver.kube.reflector import Reflector


def node(name: str, version: int, **labels: str) -> Obj:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version), "labels": labels}}


def event(kind: EventType, obj: Any) -> WatchEvent:
    return WatchEvent(kind, obj)


class ScriptedWatch:
    """Yields what the test feeds, raises what it feeds, ends on END; close() ends it from another thread."""

    END = object()

    def __init__(self) -> None:
        self.feed: queue.Queue[Any] = queue.Queue()
        self.closed = False

    def __enter__(self) -> Iterator[WatchEvent]:
        return self._events()

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def close(self) -> None:
        self.feed.put(self.END)

    def _events(self) -> Iterator[WatchEvent]:
        while True:
            item = self.feed.get(timeout=10)
            if item is self.END:
                return
            if isinstance(item, Exception):
                raise item
            yield item


class ScriptedApi:
    """Answers lists from ``pages`` (an exception is raised); every watch request arrives in ``watches``."""

    def __init__(self, *pages: ListPage | Exception) -> None:
        self.pages = list(pages)
        self.list_calls: list[dict[str, Any]] = []
        self.watch_calls: list[dict[str, Any]] = []
        self.watches: queue.Queue[ScriptedWatch] = queue.Queue()
        self.refuse: list[Exception] = []

    def list(self, _resource: object, namespace: str | None = None, **arguments: Any) -> ListPage:
        self.list_calls.append({"namespace": namespace, **arguments})
        page = self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]
        if isinstance(page, Exception):
            raise page
        return page

    def watch(self, _resource: object, namespace: str | None = None, **arguments: Any) -> ScriptedWatch:
        self.watch_calls.append({"namespace": namespace, **arguments})
        if self.refuse:
            raise self.refuse.pop(0)
        watch = ScriptedWatch()
        self.watches.put(watch)
        return watch

    def next_watch(self) -> ScriptedWatch:
        return self.watches.get(timeout=5)


class Changes:
    """Collects callbacks; ``take`` waits for the next one."""

    def __init__(self) -> None:
        self.seen: queue.Queue[tuple[Obj | None, Obj | None]] = queue.Queue()

    def __call__(self, old: Obj | None, new: Obj | None) -> None:
        self.seen.put((old, new))

    def take(self) -> tuple[Obj | None, Obj | None]:
        return self.seen.get(timeout=5)

    def take_names(self) -> tuple[str | None, str | None]:
        old, new = self.take()
        return (old["metadata"]["name"] if old else None, new["metadata"]["name"] if new else None)


Start = Callable[..., Reflector]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Reflector] = []

    def run(api: ScriptedApi, on_change: Any = None, **arguments: Any) -> Reflector:
        arguments.setdefault("backoff", Backoff(0.001, 0.002))
        reflector = Reflector(cast(KubeApi, api), NODES, on_change, **arguments)
        started.append(reflector)
        reflector.start()
        return reflector

    yield run
    for reflector in started:
        reflector.stop()


def test_lists_in_pages_and_watches_from_the_lists_version(start: Start) -> None:
    api = ScriptedApi(ListPage([node("a", 1)], "7", "more"), ListPage([node("b", 2)], "7"))
    changes = Changes()
    reflector = start(api, changes, label_selector="gpu=yes", field_selector="x=y", page_size=1, watch_seconds=60)
    assert reflector.wait_for_sync(5)
    api.next_watch()
    assert [call["continue_token"] for call in api.list_calls] == ["", "more"]
    assert all(call["limit"] == 1 and call["label_selector"] == "gpu=yes" for call in api.list_calls)
    assert api.watch_calls == [
        {
            "namespace": None,
            "resource_version": "7",
            "label_selector": "gpu=yes",
            "field_selector": "x=y",
            "timeout_seconds": 60,
        }
    ]
    assert sorted(obj["metadata"]["name"] for obj in reflector.store.objects()) == ["a", "b"]
    assert {changes.take_names(), changes.take_names()} == {(None, "a"), (None, "b")}
    assert reflector.relists == 1


def test_events_reach_the_store_before_the_callback(start: Start) -> None:
    api = ScriptedApi(ListPage([], "1"))
    in_store: queue.Queue[Obj | None] = queue.Queue()
    running: list[Reflector] = []
    reflector = start(api, lambda _old, _new: in_store.put(running[0].store.get("a")), indexes={"zone": _zones})
    running.append(reflector)
    watch = api.next_watch()
    watch.feed.put(event(EventType.ADDED, node("a", 1)))
    assert in_store.get(timeout=5) == node("a", 1)
    watch.feed.put(event(EventType.MODIFIED, node("a", 2, zone="east")))
    assert in_store.get(timeout=5) == node("a", 2, zone="east")
    assert reflector.store.by_index("zone", "east") == [node("a", 2, zone="east")]
    watch.feed.put(event(EventType.DELETED, node("a", 3, zone="east")))
    assert in_store.get(timeout=5) is None
    assert reflector.store.by_index("zone", "east") == []
    assert reflector.store.index_values("zone") == []


def _zones(obj: Obj) -> list[str]:
    return [value for key, value in obj["metadata"]["labels"].items() if key == "zone"]


def test_watch_goes_on_from_the_last_bookmark_when_the_server_ends_it(start: Start) -> None:
    api = ScriptedApi(ListPage([], "1"))
    reflector = start(api)
    watch = api.next_watch()
    watch.feed.put(event(EventType.ADDED, node("a", 5)))
    watch.feed.put(event(EventType.BOOKMARK, {"metadata": {"resourceVersion": "9"}}))
    watch.feed.put(ScriptedWatch.END)
    api.next_watch()
    assert watch.closed
    assert api.watch_calls[1]["resource_version"] == "9"
    assert reflector.relists == 1


@pytest.mark.parametrize("where", ["request", "event"])
def test_gone_history_means_list_again_and_callbacks_tell_the_difference(start: Start, where: str) -> None:
    api = ScriptedApi(
        ListPage([node("kept", 1), node("changed", 2), node("gone", 3)], "3"),
        ListPage([node("kept", 1), node("changed", 8), node("new", 9)], "9"),
    )
    changes = Changes()
    reflector = start(api, changes)
    assert reflector.wait_for_sync(5)
    for _ in range(3):
        changes.take()
    watch = api.next_watch()
    if where == "request":
        api.refuse.append(Expired("too old resource version"))
        watch.feed.put(ScriptedWatch.END)
    else:
        watch.feed.put(Expired("too old resource version"))
    api.next_watch()
    assert api.watch_calls[-1]["resource_version"] == "9"
    assert [changes.take_names() for _ in range(3)] == [("gone", None), ("changed", "changed"), (None, "new")]
    assert changes.seen.empty()
    assert reflector.relists == 2


def test_broken_connection_keeps_the_version_and_other_errors_list_again(start: Start) -> None:
    api = ScriptedApi(ListPage([node("a", 1)], "4"))
    reflector = start(api)
    api.next_watch().feed.put(Unavailable("connection reset", code=0))
    watch = api.next_watch()
    assert api.watch_calls[-1]["resource_version"] == "4"
    assert reflector.relists == 1
    watch.feed.put(Forbidden("no"))
    api.next_watch()
    assert reflector.relists == 2
    assert reflector.failures == 2


@pytest.mark.parametrize("error", [Unavailable("down"), ApiError("odd", code=418), RuntimeError("a bug")])
def test_failing_list_is_tried_until_it_works(start: Start, error: Exception) -> None:
    api = ScriptedApi(error, error, error, ListPage([node("a", 1)], "1"))
    reflector = start(api)
    assert reflector.wait_for_sync(5)
    assert reflector.failures == 3
    assert reflector.store.get("a") is not None


@pytest.mark.parametrize("nonsense", [None, {}, {"metadata": {}}, {"metadata": None}, [], "text"])
def test_nonsense_from_the_server_never_ends_the_thread(start: Start, nonsense: Any) -> None:
    api = ScriptedApi(ListPage([node("a", 1), nonsense], "1"))
    changes = Changes()
    reflector = start(api, changes)
    assert changes.take_names() == (None, "a")
    watch = api.next_watch()
    watch.feed.put(event(EventType.MODIFIED, nonsense))
    watch.feed.put(event(EventType.ADDED, node("b", 2)))
    assert changes.take_names() == (None, "b")
    assert reflector.failures == 2


def test_callback_that_raises_does_not_stop_the_cache(start: Start) -> None:
    api = ScriptedApi(ListPage([node("a", 1)], "1"))
    called = threading.Semaphore(0)

    def fail(_old: Obj | None, _new: Obj | None) -> None:
        called.release()
        raise RuntimeError("a bug in the callback")

    reflector = start(api, fail)
    assert called.acquire(timeout=5)
    api.next_watch().feed.put(event(EventType.ADDED, node("b", 2)))
    assert called.acquire(timeout=5)
    assert reflector.store.get("b") is not None


def test_whoever_asks_is_told_when_lists_begin_to_fail_and_work_again(start: Start) -> None:
    told: queue.Queue[ApiError | None] = queue.Queue()
    refusals = [Forbidden("no"), Forbidden("no, still"), Unavailable("away")]
    api = ScriptedApi(*refusals, ListPage([node("a", 1)], "1"), ListPage([], "2"))
    reflector = start(api, on_answer=told.put)
    first, second, third = (told.get(timeout=5) for _ in range(3))
    assert (first, second, third) == (refusals[0], refusals[2], None)
    assert reflector.has_synced.is_set()
    api.next_watch().feed.put(Expired("gone"))
    api.next_watch()
    assert told.empty()  # another list that works is no news


def test_same_version_again_is_no_change(start: Start) -> None:
    api = ScriptedApi(ListPage([node("a", 1)], "1"))
    changes = Changes()
    start(api, changes)
    changes.take()
    watch = api.next_watch()
    watch.feed.put(event(EventType.ADDED, node("a", 1)))
    watch.feed.put(event(EventType.DELETED, node("unknown", 3)))
    watch.feed.put(event(EventType.MODIFIED, node("a", 4)))
    assert changes.take() == (node("a", 1), node("a", 4))


def test_transform_cuts_objects_down(start: Start) -> None:
    api = ScriptedApi(ListPage([node("a", 1, zone="east")], "1"))
    reflector = start(api, transform=lambda obj: {"metadata": {"name": obj["metadata"]["name"]}})
    assert reflector.wait_for_sync(5)
    assert reflector.store.objects() == [{"metadata": {"name": "a"}}]


def test_stop_is_prompt_while_a_watch_is_silent() -> None:
    api = ScriptedApi(ListPage([], "1"))
    reflector = Reflector(cast(KubeApi, api), NODES)
    reflector.start()
    api.next_watch()
    thread = next(t for t in threading.enumerate() if t.name == "reflector-nodes")
    reflector.stop(timeout=5)
    assert not thread.is_alive()


def test_stop_is_prompt_while_backing_off() -> None:
    api = ScriptedApi(Unavailable("down"))
    reflector = Reflector(cast(KubeApi, api), NODES, backoff=Backoff(60, 60))
    reflector.start()
    thread = next(t for t in threading.enumerate() if t.name == "reflector-nodes")
    reflector.stop(timeout=5)
    assert not thread.is_alive()
    assert not reflector.has_synced.is_set()


def test_server_that_closes_every_watch_at_once_is_met_with_growing_pauses(start: Start) -> None:
    delays: list[float] = []

    class Recording(Backoff):
        def next_delay(self) -> float:
            delays.append(super().next_delay())
            return 0.0

    api = ScriptedApi(ListPage([], "1"))
    start(api, backoff=Recording(0.8, 30, jitter=0))
    for _ in range(8):
        api.next_watch().feed.put(ScriptedWatch.END)
    api.next_watch()
    assert delays[:8] == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]


def test_backoff_spreads_and_resets_after_a_healthy_minute() -> None:
    backoff = Backoff(0.8, 30, jitter=0.5, uniform=lambda: 1.0)
    assert [backoff.next_delay() for _ in range(3)] == [0.4, 0.8, 1.6]
    backoff.ran_for(59)
    assert backoff.next_delay() == 3.2
    backoff.ran_for(60)
    assert backoff.next_delay() == 0.4


def test_age_of_the_last_event_is_infinite_before_the_first_answer() -> None:
    api = ScriptedApi(ListPage([], "1"))
    now = [100.0]
    reflector = Reflector(cast(KubeApi, api), NODES, clock=lambda: now[0])
    assert reflector.last_event_age() == float("inf")
    reflector.start()
    api.next_watch()
    now[0] = 130.0
    assert reflector.last_event_age() == 30.0
    reflector.stop()
