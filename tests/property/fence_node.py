"""A node with two GPUs and two MIG devices that are offered in fractions, and an MPS supervisor that may be watched."""

from __future__ import annotations

import shutil
from pathlib import Path

from api.fractions import SharingBackend
from api.mig_policy import MigMode
from dra_driver.devices.policy import MigPolicy, MigRule
from dra_driver.hardware.model import Machine
from dra_driver.mps.group import GroupStatus, MpsGroup, folders_of
from kubelet_plugin.kinds.fractions import NodeFences
from tests.cdi.driver_root import VERSION
from tests.devices.builders import gpu
from tests.devices.mig_gpus import AMPERE, mig_gpu
from tests.kubelet_plugin.kinds.fence.claims import node_with
from tests.kubelet_plugin.kinds.mps.fake import FakeSupervisor
from tests.kubelet_plugin.prepare.node import TestNode
from tests.property.fence_claims import MIB, RESERVE, Target
from tests.property.killing import Clockwork

MPS, NONE = SharingBackend.MPS, SharingBackend.NONE
_PROFILE, _PROFILE_ID, _MIG_MEMORY = "1g10gb", 19, 9984 * MIB
_GPU_MEMORY = 80 * 1024 * MIB


class SupervisorUnderWatch(FakeSupervisor):
    """The fake supervisor with moments."""

    def __init__(self, node: TestNode, clockwork: Clockwork) -> None:
        super().__init__(node.plugin_folder)
        self.clockwork = clockwork
        self.plugin_folder = node.plugin_folder

    def start(self, group: MpsGroup) -> GroupStatus:
        self.clockwork.moment()
        status = super().start(group)
        self.clockwork.moment()
        return status

    def stop(self, group_id: str) -> None:
        self.clockwork.moment()
        super().stop(group_id)
        self.clockwork.moment()

    def lose(self, group_id: str) -> None:
        """Nothing of the group is left, and nobody has asked for that."""
        shutil.rmtree(folders_of(self.plugin_folder, group_id).root)
        self.states.pop(group_id, None)


class Found(NodeFences):
    """What is found on the node may change."""

    def __init__(self) -> None:
        self.backend = MPS

    def backends(self) -> tuple[SharingBackend, ...]:
        return (self.backend,)

    def reserve(self, device: str) -> int | None:
        return RESERVE


FenceNode = tuple[TestNode, SupervisorUnderWatch, Found, tuple[Target, ...]]


def fence_node(folder: Path, clockwork: Clockwork) -> FenceNode:
    divided = mig_gpu(2, enabled=True, **AMPERE)
    machine = Machine(VERSION, 12040, (gpu(0, mig=None), gpu(1, mig=None), divided))
    node = node_with(folder, on=machine, policy=MigPolicy((MigRule(mode=MigMode.STATIC),)))
    supervisor, found = SupervisorUnderWatch(node, clockwork), Found()
    node.supervisor, node.fences = supervisor, found
    made = [node.fake_mig.by_hand(divided.uuid, _PROFILE_ID, place) for place in (0, 1)]
    node.machine = node.fake_mig.machine(machine)
    whole = [
        Target(f"gpu-{each.minor}", each.uuid, each.uuid, _GPU_MEMORY, _group(each.uuid)) for each in machine.gpus[:2]
    ]
    parts = [
        Target(
            f"gpu-2-mig-{_PROFILE}-{_PROFILE_ID}-{place}",
            divided.uuid,
            each.compute_instances[0].uuid,
            _MIG_MEMORY,
            f"{_group(divided.uuid)}-{_PROFILE_ID}-{place}",
        )
        for place, each in enumerate(made)
    ]
    return node, supervisor, found, (*whole, *parts)


def _group(gpu_uuid: str) -> str:
    return f"fractions-{gpu_uuid.removeprefix('GPU-')}"
