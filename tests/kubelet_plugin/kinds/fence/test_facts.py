"""What is found on a node for fractions: measured once, kept, and told only where a rule asks for fractions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from api.fractions import SharingBackend
from dra_driver.devices.policy import DevicePolicy
from dra_driver.devices.selector import GpuSelector
from dra_driver.devices.sharing import Fractions, SharingPolicy, SharingRule
from dra_driver.errors import HardwareError
from dra_driver.hardware.inventory import machine_from_status, machine_to_status
from dra_driver.hardware.model import Machine, Reserve
from kubelet_plugin.claims.entry import ClaimEntry
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.hardware.watch import HardwareState
from kubelet_plugin.kinds.fence.facts import FILE, Divisible, FoundFences
from kubelet_plugin.kinds.fence.measuring import FencedHardware
from tests.devices.builders import gpu, machine
from tests.devices.mig_gpus import instance, mig_gpu
from tests.kubelet_plugin.fakes import eventually
from tests.kubelet_plugin.prepare.node import entry

MIB, GIB = 2**20, 2**30
MIG = "gpu-0-mig-1g10gb-19-0"
TWO = machine(gpu(0, mig=None), gpu(1, mig=None))
RULE = SharingRule(Fractions(256 * MIB, 1))


class Source:
    """Of readings, and of the hardware as others are told of it."""

    def __init__(self, found: Machine) -> None:
        self.state = HardwareState(True, found, "")
        self._listeners: list[Callable[[], None]] = []

    def on_reading(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    on_change = on_reading

    def read(self, found: Machine | None = None) -> None:
        if found is not None:
            self.state = HardwareState(True, found, "")
        for listener in self._listeners:
            listener()


class Node:
    """``busy``: UUIDs that a process uses, ``failing``: that NVML has an error for, ``looks`` for processes so far; ``servers``: how much memory an MPS server has."""

    def __init__(self, folder: Path, found: Machine = TWO, *rules: SharingRule) -> None:
        self.folder = folder
        self.source = Source(found)
        self.busy: set[str] = set()
        self.locked: set[str] = set()
        self.failing: set[str] = set()
        self.looks = 0
        self.cutting = False
        self.claims: dict[str, ClaimEntry] = {}
        self.asked: list[str] = []
        self.serving: list[str] = []
        self.tidied = 0
        self.found = FoundFences(folder)
        self.found.check(SharingBackend.MPS, lambda: True)
        policy = DevicePolicy(sharing=SharingPolicy(rules or (RULE,)))
        self.hardware = FencedHardware(
            self.source,
            self.source,
            self.found,
            NodePolicy("n", "boot", policy),
            self,
            self,
            self,
            layouts_pending=lambda: self.cutting,
        )

    @contextmanager
    def try_gpu(self, gpu_uuid: str) -> Iterator[bool]:
        yield gpu_uuid not in self.locked

    def entries(self) -> dict[str, ClaimEntry]:
        return self.claims

    def free(self, uuid: str) -> int:
        self.asked.append(uuid)
        size = (9984 - 20) * MIB if uuid.startswith("MIG") else 80 * GIB - 600 * MIB
        return size - (30 * MIB if uuid in self.serving else 0)

    def is_idle(self, uuid: str) -> bool:
        self.looks += 1
        if uuid in self.failing:
            raise HardwareError(f"{uuid} does not answer")
        return uuid not in self.busy

    def tidy(self) -> None:
        self.tidied += 1

    @contextmanager
    def __call__(self, device: Divisible, /) -> Iterator[None]:
        self.serving.append(device.uuid)
        try:
            yield
        finally:
            self.serving.remove(device.uuid)

    def reserves(self) -> dict[str, int]:
        found = self.hardware.state.machine
        assert found is not None
        return {each.device: each.bytes >> 20 for one in found.gpus for each in one.reserves}


@contextmanager
def running(node: Node) -> Iterator[Node]:
    node.hardware.start()
    node.source.read()
    try:
        yield node
    finally:
        node.hardware.stop()


def test_what_driver_and_mps_keep_is_measured_and_told(tmp_path: Path) -> None:
    with running(Node(tmp_path)) as node:
        eventually(lambda: node.reserves() == {"gpu-0": 630, "gpu-1": 630})
        assert node.serving == []
        told = node.hardware.state.machine
        assert told is not None
        assert told.fences == (SharingBackend.MPS,)


def test_a_restart_measures_nothing_again(tmp_path: Path) -> None:
    with running(Node(tmp_path)) as node:
        eventually(lambda: len(node.reserves()) == 2)
    with running(Node(tmp_path)) as again:
        eventually(lambda: len(again.reserves()) == 2)
        again.source.read()
        eventually(lambda: len(again.reserves()) == 2)
        assert again.asked == []


def test_another_driver_is_measured_anew(tmp_path: Path) -> None:
    with running(Node(tmp_path)) as node:
        eventually(lambda: len(node.reserves()) == 2)
        node.source.read(replace(TWO, driver_version="615.1.2"))
        eventually(lambda: len(node.asked) == 4)
        eventually(lambda: len(node.reserves()) == 2)


@pytest.mark.parametrize("how", ["busy", "locked", "held"])
def test_a_gpu_in_use_is_measured_later(tmp_path: Path, how: str) -> None:
    node = Node(tmp_path)
    first = TWO.gpus[0].uuid
    if how == "held":
        held = entry("u1")
        node.claims["u1"] = replace(held, devices=tuple(replace(each, gpu_uuid=first) for each in held.devices))
    else:
        getattr(node, how).add(first)
    with running(node):
        eventually(lambda: node.reserves() == {"gpu-1": 630})
        node.busy, node.locked, node.claims = set(), set(), {}
        node.source.read()
        eventually(lambda: len(node.reserves()) == 2)


def test_a_gpu_that_fails_stops_no_other_and_is_tried_again(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.failing = {TWO.gpus[0].uuid}
    with running(node):
        eventually(lambda: node.reserves() == {"gpu-1": 630})
        eventually(lambda: node.hardware.loop.errors >= 1)
        node.failing = set()
        eventually(lambda: len(node.reserves()) == 2)
    assert node.asked == [TWO.gpus[1].uuid, TWO.gpus[0].uuid]


def test_nothing_is_measured_while_layouts_cut_gpus(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.cutting = True
    with running(node):
        eventually(lambda: node.hardware.loop.last_round > 0)
        assert (node.asked, node.looks) == ([], 0)
        node.cutting = False
        eventually(lambda: len(node.reserves()) == 2)


def test_why_a_gpu_waits_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node = Node(tmp_path)
    node.busy = {TWO.gpus[0].uuid}
    with caplog.at_level("INFO"), running(node):
        eventually(lambda: node.reserves() == {"gpu-1": 630})
        node.looks = 0
        node.source.read()
        eventually(lambda: node.looks >= 1)
    assert [each.message for each in caplog.records if "before its memory is measured" in each.message] == [
        "gpu-0 is not offered in fractions before its memory is measured: a process uses it"
    ]


def test_nothing_is_measured_or_told_without_a_rule_for_fractions(tmp_path: Path) -> None:
    only_second = SharingRule(Fractions(256 * MIB, 1), GpuSelector(minors=(1,)))
    with running(Node(tmp_path, TWO, only_second)) as node:
        eventually(lambda: node.reserves() == {"gpu-1": 630})
    alone = machine(gpu(0, mig=None))
    with running(Node(tmp_path / "other", alone, only_second)) as node:
        node.source.read()
        assert node.hardware.state.machine == alone
        assert node.asked == []


def test_mig_devices_are_measured_by_their_own_and_a_gpu_in_mig_mode_is_not(tmp_path: Path) -> None:
    one = mig_gpu(enabled=True, instances=(instance("1g.10gb", 0),))
    mig = SharingRule(Fractions(256 * MIB, 1), mig_profile="1g.10gb")
    with running(Node(tmp_path, machine(one), RULE, mig)) as node:
        eventually(lambda: node.reserves() == {MIG: 50})


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"driverVersion": "1"}', '{"driverVersion": "1", "reserves": {"a": -1}}']
)
def test_a_file_that_cannot_be_read_is_measured_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with running(Node(tmp_path)) as node:
        eventually(lambda: len(node.reserves()) == 2)
        assert set(json.loads((tmp_path / FILE).read_text())["reserves"]) == {each.uuid for each in TWO.gpus}


def test_devices_that_have_gone_are_forgotten(tmp_path: Path) -> None:
    with running(Node(tmp_path)) as node:
        eventually(lambda: len(node.reserves()) == 2)
        other = machine(gpu(5, mig=None))
        node.source.read(other)
        eventually(lambda: node.reserves() == {"gpu-5": 630})
    assert list(json.loads((tmp_path / FILE).read_text())["reserves"]) == [other.gpus[0].uuid]


def test_the_machine_as_it_is_told_survives_the_inventory() -> None:
    told = replace(
        TWO,
        gpus=(replace(TWO.gpus[0], reserves=(Reserve("gpu-0", 630 * MIB),)), TWO.gpus[1]),
        fences=(SharingBackend.CGROUP, SharingBackend.MPS),
    )
    assert machine_from_status(machine_to_status(told)) == told
