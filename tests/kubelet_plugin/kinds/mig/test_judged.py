"""What the controller is told: foreign instances after two readings, refused placements, and nothing about claims'.

And which devices of claims are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from api.mig_policy import MigMode
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.errors import DriverError, StateError
from dra_driver.hardware.model import Machine
from kubelet_plugin.claims.entry import ClaimEntry
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.hardware.watch import HardwareState
from kubelet_plugin.health.troubles import TroubledDevices
from kubelet_plugin.kinds.mig.judged import JudgedHardware
from kubelet_plugin.kinds.mig.place import MigPlace
from kubelet_plugin.kinds.mig.refused import RefusedPlacements
from kubelet_plugin.prepare.engine import PrepareEngine
from tests.devices.recorded import recorded
from tests.kubelet_plugin.prepare.node import BOOT, NODE, TestNode, claim, ref, result


@dataclass
class Watch:
    """The hardware watch, read by hand."""

    state: HardwareState = field(default_factory=HardwareState)
    requests: list[float] = field(default_factory=list)
    listeners: list[Callable[[], None]] = field(default_factory=list)

    def on_reading(self, listener: Callable[[], None]) -> None:
        self.listeners.append(listener)

    def request_scan(self) -> None:
        self.requests.append(0.0)

    def request_scan_within(self, seconds: float) -> None:
        self.requests.append(seconds)

    def read(self, machine: Machine | None, problem: str = "") -> None:
        self.state = HardwareState(True, machine, problem, tentative=bool(problem))
        for listener in self.listeners:
            listener()


class Lab:
    """A node whose engine works on fake hardware, and what is published of it."""

    def __init__(self, folder: Path, machine: Machine, policy: MigPolicy | None = None) -> None:
        self.now = 0.0
        self.node = TestNode(folder, on=machine, policy=policy or MigPolicy())
        self.node.refused = RefusedPlacements(clock=lambda: self.now)
        self.engine: PrepareEngine = self.node.engine()
        self.watch = Watch()
        self.broken = False
        self.published = self.publish()

    def publish(self) -> JudgedHardware:
        policy = NodePolicy(NODE, BOOT, DevicePolicy(mig=self.node.policy))
        self.missing = TroubledDevices(self.watch, self.entries, self.node.kinds(), BOOT)
        self.changes = 0
        published = JudgedHardware(self.watch, self.entries, policy, self.node.refused)
        published.on_change(self.count)
        self.missing.on_change(self.count)
        return published

    def count(self) -> None:
        self.changes += 1

    def entries(self) -> Mapping[str, ClaimEntry]:
        if self.broken:
            raise StateError("the disk is gone")
        return self.engine.entries()

    def snapshot(self) -> Machine:
        return self.node.fake_mig.machine(self.node.machine)

    def read(self, machine: Machine | None = None) -> None:
        self.watch.requests.clear()
        self.watch.read(machine or self.snapshot())

    def prepare(self, uid: str, device: str) -> None:
        self.node.claims.add(claim(uid, result(device)))
        answer = self.engine.prepare([ref(uid)], timeout=10)[uid]
        assert not isinstance(answer, DriverError), answer

    def foreign(self) -> list[tuple[str, str, int]]:
        machine = self.published.state.machine
        assert machine is not None
        return [
            (gpu.uuid, each.profile_name, each.placement.start)
            for gpu in machine.gpus
            if gpu.mig
            for each in gpu.mig.instances
            if each.foreign
        ]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path, recorded("h100-sxm5-80gb", 3))
    lab.read()
    return lab


def test_prepares_change_nothing_that_is_told(lab: Lab) -> None:
    before, changes = lab.published.state, lab.changes
    lab.prepare("u1", "gpu-1-mig-1g10gb-19-0")
    lab.read()
    lab.read()
    lab.engine.unprepare([ref("u1")], timeout=10)
    lab.read()
    assert lab.published.state == before
    assert lab.changes == changes
    assert before.machine == lab.node.machine


def test_an_instance_without_an_owner_is_foreign_at_the_second_reading(lab: Lab) -> None:
    lab.node.fake_mig.by_hand("GPU-2", 9, 4)
    lab.read()
    assert lab.foreign() == []
    assert lab.watch.requests == [1.0], "the second reading is asked for"
    lab.read()
    assert lab.foreign() == [("GPU-2", "3g.40gb", 4)]
    assert lab.watch.requests == []
    machine = lab.published.state.machine
    assert machine is not None
    assert [gpu.mig.enabled for gpu in machine.gpus if gpu.mig] == [False, False, True]
    lab.node.fake_mig.destroy_by_hand("GPU-2", 1)
    lab.read()
    assert lab.foreign() == []


def test_a_reading_that_is_older_than_an_unprepare_makes_nothing_foreign(lab: Lab) -> None:
    lab.prepare("u1", "gpu-1-mig-1g10gb-19-0")
    old = lab.snapshot()
    lab.engine.unprepare([ref("u1")], timeout=10)
    lab.read(old)
    lab.prepare("u1", "gpu-1-mig-1g10gb-19-0")
    lab.engine.unprepare([ref("u1")], timeout=10)
    lab.read()
    assert lab.foreign() == []


def test_another_instance_at_the_same_place_is_another_sighting(lab: Lab) -> None:
    lab.node.fake_mig.by_hand("GPU-2", 9, 4)
    lab.read()
    lab.node.fake_mig.destroy_by_hand("GPU-2", 1)
    lab.node.fake_mig.by_hand("GPU-2", 9, 4)
    lab.read()
    assert lab.foreign() == []
    lab.read()
    assert lab.foreign() == [("GPU-2", "3g.40gb", 4)]


def test_a_restart_tells_nothing_until_it_is_sure(lab: Lab) -> None:
    lab.node.fake_mig.by_hand("GPU-2", 9, 4)
    lab.read()
    lab.read()
    told = lab.published.state
    lab.watch = Watch()
    lab.published = lab.publish()
    lab.read()
    assert lab.published.state == HardwareState()
    assert lab.watch.requests == [1.0, 0.0]
    lab.read()
    assert lab.published.state == told
    assert lab.changes == 1


def test_half_prepared_claims_own_what_they_may_have_made(lab: Lab) -> None:
    lab.node.claims.add(claim("u1", result("gpu-1-mig-1g10gb-19-0")))
    lab.node.fake_mig.busy.add("GPU-1")
    lab.prepare("u2", "gpu-2-mig-1g10gb-19-0")
    lab.node.fake_mig.in_use.add("MIG-0001")
    assert isinstance(lab.engine.unprepare([ref("u2")], timeout=10)["u2"], DriverError)
    lab.read()
    lab.read()
    assert lab.foreign() == []
    assert lab.missing.devices == {}


def test_without_a_checkpoint_nothing_is_judged(lab: Lab) -> None:
    lab.node.fake_mig.by_hand("GPU-2", 9, 4)
    lab.broken = True
    for _ in range(3):
        lab.read()
        assert lab.foreign() == []
    lab.broken = False
    lab.read()
    lab.read()
    assert len(lab.foreign()) == 1


def test_what_was_read_before_a_problem_stays_as_it_was_judged(lab: Lab) -> None:
    lab.node.fake_mig.by_hand("GPU-2", 9, 4)
    lab.read()
    lab.read()
    machine = lab.published.state.machine
    lab.watch.read(lab.snapshot(), "NVML said 999")
    assert lab.published.state.machine == machine
    assert lab.published.state.problem == "NVML said 999"
    lab.watch.read(None, "NVML said 999")
    assert lab.published.state.machine is None


def test_static_gpus_are_told_as_they_are(tmp_path: Path) -> None:
    lab = Lab(tmp_path, recorded("h100-sxm5-80gb", 2), MigPolicy((MigRule(mode=MigMode.STATIC),)))
    lab.node.fake_mig.by_hand("GPU-1", 9, 4)
    lab.read()
    lab.read()
    assert lab.published.state.machine == lab.snapshot()
    assert lab.foreign() == []


def test_on_ampere_the_mode_is_told_as_it_is(tmp_path: Path) -> None:
    lab = Lab(tmp_path, recorded("a100-sxm4-40gb", 2), MigPolicy((MigRule(mode=MigMode.DYNAMIC),)))
    lab.node.fake_mig.turn_on("GPU-1")
    lab.read()
    machine = lab.published.state.machine
    assert machine is not None
    assert [gpu.mig.enabled for gpu in machine.gpus if gpu.mig] == [False, True]


def test_refused_placements_are_told_for_five_minutes(lab: Lab) -> None:
    machine = lab.node.machine
    assert machine.gpus[1].mig is not None
    profile = machine.gpus[1].mig.profiles[0]
    place = MigPlace("GPU-1", profile.id, profile.name, profile.placements[2], profile.slice_count)
    lab.watch.requests.clear()
    lab.node.refused.remember(place, "NVML says no")
    assert lab.watch.requests == [0.0]
    lab.now = 10.0
    lab.node.refused.remember(place, "NVML says no, and 2 instances are there")
    lab.read()
    told = lab.published.state.machine
    assert told is not None
    assert told.gpus[1].mig is not None
    assert [(each.placement.start, each.message) for each in told.gpus[1].mig.refused] == [(2, "NVML says no")]
    assert lab.watch.requests == [300.0]
    lab.now = 311.0
    lab.read()
    assert lab.published.state.machine == machine


def test_a_claims_instance_that_somebody_destroyed_is_missing_at_the_second_reading(lab: Lab) -> None:
    lab.prepare("u1", "gpu-1-mig-1g10gb-19-0")
    old = lab.snapshot()
    lab.prepare("u2", "gpu-1-mig-3g40gb-9-4")
    lab.read(old)
    assert lab.watch.requests == [1.0]
    lab.read()
    assert lab.missing.devices == {}
    changes = lab.changes
    lab.node.fake_mig.destroy_by_hand("GPU-1", 1)
    lab.read()
    lab.read()
    assert set(lab.missing.devices) == {"gpu-1-mig-1g10gb-19-0"}
    assert lab.changes == changes + 1
    machine = lab.snapshot()
    lab.read(replace(machine, gpus=machine.gpus[:1]))
    assert lab.missing.devices == {}, "of a GPU that does not answer nothing is known"
