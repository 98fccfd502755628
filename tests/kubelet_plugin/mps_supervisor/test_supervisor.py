"""Turns and states of groups, with steps that tests control."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from dra_driver.errors import HardwareError
from dra_driver.hardware.nvml.compute_device import ComputeDevice
from dra_driver.mps.errors import GroupDiffers, GroupFailed, GroupTimeout
from dra_driver.mps.group import GroupState, GroupStatus, MpsGroup
from dra_driver.processes import Process
from kubelet_plugin.mps_supervisor.running import Running
from kubelet_plugin.mps_supervisor.supervisor import Supervisor
from tests.kubelet_plugin.fakes import eventually

PATIENCE = 20.0
A, B = MpsGroup("a", ("GPU-a",)), MpsGroup("b", ("GPU-b",))


class ScriptedSteps:
    """A start of a group in ``hanging`` ends when it is given up or let go."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.hanging: dict[str, threading.Event] = {}
        self.failing: dict[str, Exception] = {}
        self._pids = iter(range(100, 1000))

    def start(self, group: MpsGroup, until: float, given_up: threading.Event) -> Process:
        self.done.append(f"start {group.id}")
        hanging = self.hanging.get(group.id)
        while hanging is not None and not hanging.wait(0.005):
            if given_up.is_set():
                raise GroupTimeout("given up")
        self._fail(f"start {group.id}")
        return Process(next(self._pids), 1)

    def remove(self, group_id: str, drain: float) -> None:
        self.done.append(f"remove {group_id}")
        self._fail(f"remove {group_id}")

    def protocols(self) -> tuple[int, ...]:
        return (2,)

    def _fail(self, what: str) -> None:
        if what in self.failing:
            raise self.failing.pop(what)


class AnyGpus:
    def device(self, uuid: str) -> ComputeDevice | None:
        return ComputeDevice(uuid, False, 80000, (9, 0))

    def make_exclusive(self, gpu_uuid: str) -> None:
        raise AssertionError("the steps do that")

    make_default = make_exclusive


class Tallies:
    def __init__(self) -> None:
        self.told: list[str] = []

    def started(self, seconds: float) -> None:
        self.told.append("started")

    def failed(self, reason: str) -> None:
        self.told.append(reason)

    def recycled(self) -> None:
        self.told.append("recycled")


class Scene:
    def __init__(self, start_seconds: float = PATIENCE) -> None:
        self.steps = ScriptedSteps()
        self.tallies = Tallies()
        self.supervisor = Supervisor(
            self.steps, AnyGpus(), self.tallies, start_seconds=start_seconds, drain_seconds=5.0
        )

    def state(self, group: MpsGroup) -> GroupState | None:
        found = self.supervisor.find(group.id)
        return None if found is None else found.state

    @contextmanager
    def hanging_start(self, group: MpsGroup) -> Iterator[tuple[threading.Event, Future[GroupStatus]]]:
        go_on = self.steps.hanging[group.id] = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            start = pool.submit(self.supervisor.start, group)
            try:
                eventually(lambda: f"start {group.id}" in self.steps.done, PATIENCE)
                yield go_on, start
            finally:
                go_on.set()


def test_those_who_want_the_same_group_get_one_daemon() -> None:
    scene = Scene()
    with scene.hanging_start(A) as (go_on, first), ThreadPoolExecutor(4) as pool:
        others = [pool.submit(scene.supervisor.start, A) for _ in range(4)]
        go_on.set()
        assert {each.result(PATIENCE) for each in others} == {first.result(PATIENCE)}
    assert scene.steps.done == ["start a"]


def test_a_start_that_hangs_keeps_its_devices_and_delays_nobody_else() -> None:
    scene = Scene()
    with scene.hanging_start(A):
        assert scene.state(A) is GroupState.STARTING
        assert scene.supervisor.start(B).state is GroupState.READY
        with pytest.raises(GroupDiffers, match="GPU-a is in MPS group a already, not free for c"):
            scene.supervisor.start(MpsGroup("c", ("GPU-a", "GPU-c")))
    assert scene.supervisor.find("c") is None


def test_a_stop_gives_up_the_start_under_way() -> None:
    scene = Scene()
    with scene.hanging_start(A) as (_go_on, start):
        scene.supervisor.stop("a")
        with pytest.raises(GroupTimeout, match="given up"):
            start.result(PATIENCE)
    assert scene.supervisor.groups() == ()
    assert scene.steps.done == ["start a", "remove a", "remove a"]


def test_nobody_waits_for_a_turn_for_ever() -> None:
    scene = Scene(start_seconds=0.05)
    with scene.hanging_start(A), pytest.raises(GroupTimeout, match="still being started or stopped"):
        scene.supervisor.start(A)


@pytest.mark.parametrize("error", [OSError(28, "no space", "/var"), GroupFailed("it ended"), HardwareError("no mode")])
def test_a_start_that_fails_is_rolled_back_and_told(error: Exception) -> None:
    scene = Scene()
    scene.steps.failing["start a"] = error
    with pytest.raises(HardwareError) as caught:
        scene.supervisor.start(A)
    assert scene.steps.done == ["start a", "remove a"]
    assert scene.supervisor.groups() == ()
    assert scene.tallies.told == [caught.value.reason]
    assert scene.supervisor.start(A).state is GroupState.READY


def test_what_cannot_be_rolled_back_is_there_as_dead_and_stopped_again() -> None:
    scene = Scene()
    scene.steps.failing = {"start a": GroupFailed("it ended"), "remove a": OSError(16, "busy", "/shm")}
    with pytest.raises(GroupFailed, match="it ended"):
        scene.supervisor.start(A)
    found = scene.supervisor.find("a")
    assert found is not None
    assert (found.state, found.message.partition(":")[0]) == (GroupState.DEAD, "it is not removed")
    scene.supervisor.stop("a")
    assert scene.supervisor.groups() == ()


def test_a_stop_that_fails_keeps_the_group() -> None:
    scene = Scene()
    scene.supervisor.start(A)
    scene.steps.failing["remove a"] = OSError(16, "busy", "/shm")
    with pytest.raises(GroupFailed, match=r"stop of MPS group a failed: busy \(/shm\)"):
        scene.supervisor.stop("a")
    assert scene.state(A) is GroupState.DEAD
    scene.supervisor.stop("a")
    assert scene.supervisor.find("a") is None


def test_only_an_idle_wedged_group_is_recycled() -> None:
    scene = Scene()
    scene.supervisor.start(A)
    ready = scene.supervisor.find("a")
    assert ready is not None
    scene.supervisor.recycle("a")
    wedged = Running(A, GroupState.WEDGED, "stuck", ready.daemon, frozenset({7}))
    assert scene.supervisor.observed(ready, wedged)
    scene.supervisor.recycle("a")
    assert scene.steps.done == ["start a"]
    idle = Running(A, GroupState.WEDGED, "stuck", ready.daemon)
    assert scene.supervisor.observed(wedged, idle)
    scene.supervisor.recycle("a")
    again = scene.supervisor.find("a")
    assert again is not None
    assert (again.state, scene.steps.done) == (GroupState.READY, ["start a", "start a"])
    assert again.daemon != ready.daemon
    assert scene.tallies.told[-1] == "recycled"


def test_a_recycled_group_that_does_not_start_is_dead_and_keeps_its_folders() -> None:
    scene = Scene()
    scene.supervisor.start(A)
    ready = scene.supervisor.find("a")
    assert ready is not None
    scene.supervisor.observed(ready, Running(A, GroupState.WEDGED, "stuck", ready.daemon))
    scene.steps.failing["start a"] = GroupFailed("it ended")
    scene.supervisor.recycle("a")
    assert scene.state(A) is GroupState.DEAD
    assert "remove a" not in scene.steps.done


def test_what_was_seen_before_a_change_is_not_told_after_it() -> None:
    scene = Scene()
    scene.supervisor.start(A)
    seen = scene.supervisor.find("a")
    assert seen is not None
    scene.supervisor.stop("a")
    assert not scene.supervisor.observed(seen, Running(A, GroupState.DEAD, "late"))
    assert scene.supervisor.groups() == ()


def test_a_change_wakes_those_who_wait() -> None:
    scene = Scene()
    seen = scene.supervisor.changes
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(scene.supervisor.wait_for_change, seen, PATIENCE)
        scene.supervisor.start(A)
        assert waiting.result(PATIENCE) != seen
    assert scene.supervisor.wait_for_change(scene.supervisor.changes, 0) == scene.supervisor.changes
