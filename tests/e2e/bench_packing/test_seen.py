"""What is made of the watches' events: when a pod was refused and scheduled, and whether there was room for it."""

from __future__ import annotations

import pytest

from dra_driver.kube.interface import EventType, Obj, WatchEvent
from e2e.bench_packing import seen as module
from e2e.bench_packing.room import Room
from e2e.bench_packing.seen import Pod, Seen
from e2e.kit.expected import DRIVER
from tests.e2e.bench_packing.test_room import KIND

WHOLE_NODE = [("n1", device) for device in KIND.placements["7g.80gb"]]


@pytest.fixture
def scheduled() -> list[str]:
    return []


@pytest.fixture
def seen(scheduled: list[str]) -> Seen:
    found = Seen(Room(KIND, ["n1"]), scheduled.append)
    found.begin({})
    return found


def pod_event(name: str, *, node: str = "", reason: str = "") -> WatchEvent:
    conditions = [{"type": "PodScheduled", "status": "False", "reason": reason}] if reason else []
    spec = {"nodeName": node} if node else {}
    return WatchEvent(
        EventType.MODIFIED, {"metadata": {"name": name}, "spec": spec, "status": {"conditions": conditions}}
    )


def claim_event(name: str, *places: tuple[str, str], kind: EventType = EventType.MODIFIED) -> WatchEvent:
    results = [{"request": "gpu", "driver": DRIVER, "pool": pool, "device": device} for pool, device in places]
    status: Obj = {"allocation": {"devices": {"results": results}}} if places else {}
    return WatchEvent(kind, {"metadata": {"name": name}, "status": status})


def was_refused(seen: Seen, name: str) -> bool:
    return seen.pods[name].refused is not None


def test_a_pod_is_scheduled_once(seen: Seen, scheduled: list[str]) -> None:
    seen.create("p1", Pod("1g.10gb", 5.0, created=0.0))
    assert seen.waiting() == ["p1"]
    for _ in range(2):
        seen.see_pod(pod_event("p1", node="n1"))
    seen.see_pod(pod_event("of somebody else", node="n1"))
    assert scheduled == ["p1"]
    assert seen.waiting() == []
    assert not was_refused(seen, "p1")
    assert seen.pods["p1"].waited == seen.pods["p1"].scheduled


def test_a_pod_is_refused_for_want_of_room(seen: Seen, scheduled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SURELY_FREE_SECONDS", -1.0)
    seen.see_claim(claim_event("all", *WHOLE_NODE))
    seen.create("p1", Pod("1g.10gb", 5.0, created=0.0))
    seen.see_pod(pod_event("p1", reason="SchedulingGated"))
    assert not was_refused(seen, "p1")
    seen.see_pod(pod_event("p1", reason="Unschedulable"))
    assert was_refused(seen, "p1")
    missed = [seen.pods["p1"].room_missed]
    seen.see_claim(claim_event("all", kind=EventType.DELETED))
    seen.see_pod(pod_event("p1", reason="Unschedulable"))
    missed.append(seen.pods["p1"].room_missed)
    assert missed == [False, True]
    assert scheduled == []


def test_room_that_has_just_come_free_is_not_missed(seen: Seen) -> None:
    seen.see_claim(claim_event("all", *WHOLE_NODE))
    seen.see_claim(claim_event("all", *WHOLE_NODE[1:]))
    assert set(seen.free_since) >= {"1g.10gb", "4g.40gb"}
    seen.create("p1", Pod("1g.10gb", 5.0, created=0.0))
    seen.see_pod(pod_event("p1", reason="Unschedulable"))
    assert not seen.pods["p1"].room_missed


def test_compute_slices_are_counted_while_they_are_in_use(seen: Seen) -> None:
    assert seen.busy_until_now() == 0
    seen.see_claim(claim_event("c1", ("n1", "gpu-0-mig-3g40gb-9-4")))
    first = seen.busy_until_now()
    assert first > 0
    seen.see_claim(claim_event("c1"))
    last = seen.busy_until_now()
    assert last >= first
    assert seen.busy_until_now() == last
