from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from dra_driver.kube.interface import KubeApi, NotFound, Obj, Unavailable
from dra_driver.observability.events import EventRecorder, ObjectRef

NODE = ObjectRef("v1", "Node", "n1", uid="u1")
POD = ObjectRef("v1", "Pod", "p", uid="u2", namespace="team")


class EventServer:
    """Keeps Events and says when it was written to."""

    def __init__(self) -> None:
        self.events: dict[str, Obj] = {}
        self.patches: list[Obj] = []
        self.fault: Exception | None = None
        self.hold: threading.Event | None = None
        self.changed = threading.Condition()

    def create(self, _resource: object, obj: Obj) -> Obj:
        if self.hold is not None:
            self.hold.wait(5)
        with self.changed:
            self.changed.notify_all()
            if self.fault:
                fault, self.fault = self.fault, None
                raise fault
            self.events[obj["metadata"]["name"]] = obj
            return obj

    def patch(self, _resource: object, name: str, patch: Obj, namespace: str | None = None, **_: Any) -> Obj:
        with self.changed:
            self.changed.notify_all()
            if name not in self.events:
                raise NotFound("expired")
            assert self.events[name]["metadata"]["namespace"] == namespace
            self.patches.append(patch)
            self.events[name].update(patch)
            return self.events[name]

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout=5)

    def all(self) -> list[Obj]:
        with self.changed:
            return list(self.events.values())


@pytest.fixture
def server() -> EventServer:
    return EventServer()


@pytest.fixture
def recorder(server: EventServer) -> Iterator[EventRecorder]:
    recorder = EventRecorder(cast(KubeApi, server), "gpu-dra-test", "host1", wall_clock=lambda: 1795421010.0)
    recorder.start()
    yield recorder
    recorder.stop()


def test_event_has_everything_that_describe_shows(server: EventServer, recorder: EventRecorder) -> None:
    recorder.event(POD, "Warning", "InvalidConfig", "spec.sharing: unknown field")
    server.wait(lambda: len(server.events) == 1)
    [event] = server.all()
    assert event["metadata"]["namespace"] == "team"
    assert event["metadata"]["name"].startswith("p.")
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "team", "uid": "u2"}
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "InvalidConfig", 1)
    assert event["message"] == "spec.sharing: unknown field"
    assert event["source"] == {"component": "gpu-dra-test", "host": "host1"}
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-11-23T08:03:30Z"
    assert event["reportingComponent"] == "gpu-dra-test"


def test_cluster_scoped_objects_have_their_events_in_default(server: EventServer, recorder: EventRecorder) -> None:
    recorder.event(NODE, "Normal", "Published", "1 slice")
    server.wait(lambda: len(server.events) == 1)
    [event] = server.all()
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["involvedObject"]


def test_repetitions_are_held_back_then_written_as_a_count_on_stop(
    server: EventServer, recorder: EventRecorder
) -> None:
    for _ in range(5):
        recorder.event(NODE, "Normal", "Same", "again")
    recorder.event(NODE, "Normal", "Other", "once")
    server.wait(lambda: len(server.events) == 2)
    assert server.patches == []
    recorder.stop()
    assert [patch["count"] for patch in server.patches] == [5]
    assert sorted((event["reason"], event["count"]) for event in server.all()) == [("Other", 1), ("Same", 5)]


def test_count_is_written_when_the_interval_has_passed(server: EventServer) -> None:
    recorder = EventRecorder(cast(KubeApi, server), "c", interval=0.02)
    recorder.start()
    for _ in range(3):
        recorder.event(NODE, "Normal", "Same", "again")
    server.wait(lambda: [patch["count"] for patch in server.patches] == [3])
    recorder.event(NODE, "Normal", "Same", "again")
    server.wait(lambda: [patch["count"] for patch in server.patches] == [3, 4])
    recorder.stop()


def test_expired_event_begins_a_new_one(server: EventServer, recorder: EventRecorder) -> None:
    recorder.event(NODE, "Normal", "Same", "again")
    server.wait(lambda: len(server.events) == 1)
    with server.changed:
        server.events.clear()
    recorder.event(NODE, "Normal", "Same", "again")
    recorder.event(NODE, "Normal", "Same", "again")
    recorder.stop()
    [event] = server.all()
    assert event["count"] == 2


@pytest.mark.parametrize("fault", [Unavailable("down"), RuntimeError("a bug")])
def test_failures_are_dropped_and_later_events_still_written(
    server: EventServer, recorder: EventRecorder, fault: Exception
) -> None:
    server.fault = fault
    recorder.event(NODE, "Normal", "Lost", "first")
    server.wait(lambda: server.fault is None)
    recorder.event(NODE, "Normal", "Kept", "second")
    server.wait(lambda: len(server.events) == 1)
    assert server.all()[0]["reason"] == "Kept"


def test_full_queue_drops_and_counts_and_never_blocks(server: EventServer) -> None:
    server.hold = threading.Event()
    recorder = EventRecorder(cast(KubeApi, server), "c", capacity=2)
    recorder.start()
    for number in range(10):
        recorder.event(NODE, "Normal", "Reason", f"message {number}")
    assert recorder.dropped >= 7
    server.hold.set()
    recorder.stop()
    assert 1 <= len(server.all()) <= 3


def test_flood_of_different_messages_about_one_object_is_limited(server: EventServer) -> None:
    recorder = EventRecorder(cast(KubeApi, server), "c")
    recorder.start()
    for number in range(40):
        recorder.event(NODE, "Normal", "Flood", f"message {number}")
    recorder.event(POD, "Normal", "Quiet", "other object")
    recorder.stop()
    reasons = [event["reason"] for event in server.all()]
    assert reasons.count("Flood") == 25
    assert reasons.count("Quiet") == 1


def test_a_long_message_is_cut_to_what_the_server_takes(server: EventServer, recorder: EventRecorder) -> None:
    recorder.event(NODE, "Normal", "Long", "ü" * 2000)
    server.wait(lambda: len(server.events) == 1)
    [event] = server.all()
    assert len(event["message"].encode()) <= 1024
    assert event["message"].endswith("ü…")


def test_event_before_start_is_written_at_start_and_after_stop_is_ignored(server: EventServer) -> None:
    recorder = EventRecorder(cast(KubeApi, server), "c")
    recorder.event(NODE, "Normal", "Early", "x")
    recorder.start()
    recorder.stop()
    recorder.event(NODE, "Normal", "Late", "x")
    assert [event["reason"] for event in server.all()] == ["Early"]


def test_reference_of_an_object() -> None:
    obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": "u2", "namespace": "team"}}
    assert ObjectRef.of(obj) == POD
