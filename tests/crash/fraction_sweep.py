"""Kills a plugin at every file operation while it prepares, unprepares or recovers claims with fractions of GPUs.

Run in a process of its own (``python -m tests.crash.fraction_sweep SCENARIO FENCE FOLDER STRIDE``): the scenarios are
those of ``prepare_sweep``, which forks. FENCE is what the node fences shares with. MPS groups, namespaces, limits of
memory and their records are files of the node's folder, so there is a kill around every change of them. One share is on
the GPU of a share that stays, another has a GPU alone; of their containers, which are limited before the claims are
unprepared, one has ended by then.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from api.fractions import SharingBackend
from dra_driver.kube.interface import Obj
from dra_driver.simulation.hardware import create_state, host_root
from kubelet_plugin.kinds.fence.cgroups import CgroupFences
from kubelet_plugin.kinds.fence.namespaces import share_name
from kubelet_plugin.kinds.fractions import fractions_group
from kubelet_plugin.memory_fence.container import Container
from kubelet_plugin.memory_fence.keeper import Fences
from kubelet_plugin.memory_fence.room import FOLDER, Room, build
from kubelet_plugin.memory_fence.share import ShareName
from kubelet_plugin.prepare.engine import PrepareEngine
from tests.cgroup_tree import DRIVER, plain_tree
from tests.crash.prepare_sweep import BYSTANDER, UIDS, Devices, sweep
from tests.kubelet_plugin.kinds.fence.claims import SHARES, Has, Offered, fraction
from tests.kubelet_plugin.memory_fence.lab import Lab
from tests.kubelet_plugin.prepare.node import BOOT, TestNode, claim
from tests.kubelet_plugin.prepare.simulated_node import SimulatedNode, first_gpus

CGROUP, NAMESPACE = SharingBackend.CGROUP, SharingBackend.MPS_NAMESPACE
MACHINE = first_gpus("h100-sxm5-80gb", 4)
MINORS = {"u1": 1, "u2": 2, BYSTANDER: 1}
NUMBERS = {"u1": 0, "u2": 1, BYSTANDER: 2}  # of SHARES
GIB = 10  # that each share has
ENDS = "u2"  # whose container has ended when it is unprepared, as those of most claims have


class FractionNode(SimulatedNode):
    """``backends``: what the node fences shares with. ``containers``: by claim, those that live."""

    def __init__(self, folder: Path, *backends: SharingBackend) -> None:
        state_file = folder / "gpus.json"
        folder.mkdir(parents=True)
        create_state(MACHINE, state_file, seed="node-0", driver=DRIVER)
        host_root.build(folder / "host", state_file)
        super().__init__(folder, MACHINE)
        self.gates = frozenset(("MPSSupport",))
        self.backends = backends
        self.sharing, self.fences = Offered(), Has(*backends)
        self.lab = Lab(folder, state_file, plain_tree(folder / "cgroup"))
        self.lab.records = self.plugin_folder / FOLDER / "records"
        self.containers: dict[str, Container] = {}

    def engine(self, boot_id: str = BOOT, *, start: bool = True, start_seconds: float = 5.0) -> PrepareEngine:
        """With limits of memory that remember nothing, as those of a new process."""
        self.cgroup_fences = CgroupFences(self.plugin_folder / FOLDER, self._room, wanted=True)
        self.cgroup_fences.start()
        engine = super().engine(boot_id, start=False, start_seconds=start_seconds)
        self.cgroup_fences.shares.entries = engine.entries
        if start:
            self.start(engine)
        return engine

    def start(self, engine: PrepareEngine) -> None:
        """As ``PluginApp`` does it, on this thread."""
        engine.start()
        keeper = self.cgroup_fences.room.keeper
        keeper.start()
        assert keeper.reconcile() == ()

    def run_container(self, uid: str) -> None:
        container = self.lab.container(uid, pod=f"pod-{uid}")
        if CGROUP in self.backends:
            self.cgroup_fences.room.keeper.fence(ShareName.of(uid, share_of(uid)), container)
        if uid == ENDS:
            self.lab.end(container)
        else:
            self.containers[uid] = container

    def _room(self, shares: Fences) -> Room:
        return build(self.plugin_folder, shares, hierarchy=self.lab.hierarchy, boot_id=lambda: BOOT, proc=self.lab.proc)


def share_of(uid: str) -> str:
    return SHARES[NUMBERS[uid]]


def _fractions_node(node: TestNode) -> FractionNode:
    assert isinstance(node, FractionNode)
    return node


def _claim(uid: str, names: tuple[str, ...]) -> Obj:
    return claim(uid, fraction(NUMBERS[uid], f"{GIB}Gi", "25", *names))


def _use(node: TestNode, uids: Sequence[str]) -> None:
    for uid in uids:
        _fractions_node(node).run_container(uid)


def _start(node: TestNode, engine: PrepareEngine) -> None:
    _fractions_node(node).start(engine)


def _check(node: TestNode, prepared: set[str]) -> None:
    """Exactly the prepared claims' groups and namespaces, and the limits of their containers that live."""
    node = _fractions_node(node)
    groups = {uid: fractions_group(node.lab.gpus[MINORS[uid]], f"gpu-{MINORS[uid]}") for uid in prepared}
    assert set(node.supervisor.ids()) == set(groups.values())
    shares = {(status.group.id, each.share.name) for status in node.supervisor.now() for each in status.shares}
    assert shares == {(groups[uid], share_name(share_of(uid))) for uid in prepared if NAMESPACE in node.backends}
    _check_limits(node, {uid for uid in prepared & node.containers.keys() if CGROUP in node.backends})


def _check_limits(node: FractionNode, limited: set[str]) -> None:
    """They are on the containers of ``limited``, reserved above those, on record, and nowhere else."""
    lab = node.lab
    for uid, container in node.containers.items():
        assert lab.fence_of(container, MINORS[uid]) == ((GIB, GIB) if uid in limited else (0, None)), uid
    for minor in range(len(lab.gpus)):
        assert lab.reserved(minor) == GIB * len([uid for uid in limited if MINORS[uid] == minor])
    cgroups = [lab.cgroup(node.containers[uid]) for uid in limited]
    wanted = {str(each) for cgroup in cgroups for each in (cgroup, *lab.hierarchy.ancestors(cgroup))}
    records = {f"{uid}_{share_of(uid)}.json" for uid in limited}
    assert {each.partition(" ")[0] for each in lab.left()} == wanted | records
    assert {each.name for each in (node.plugin_folder / FOLDER).iterdir()} <= {"locks", "records"}


def _devices(middle: int, *backends: SharingBackend) -> Devices:
    claims: dict[str, tuple[str, ...]] = {uid: (f"gpu-{MINORS[uid]}",) for uid in (*UIDS, BYSTANDER)}
    return Devices(claims, partial(_node, backends), _check, middle, _claim, _use, _start)


def _node(backends: tuple[SharingBackend, ...], folder: Path) -> FractionNode:
    return FractionNode(folder, *backends)


FENCES = {
    "variables": _devices(20, SharingBackend.MPS),
    "namespace": _devices(24, NAMESPACE),
    "cgroup": _devices(24, CGROUP, NAMESPACE),
}


def main(arguments: Sequence[str]) -> None:
    scenario, fence, folder, stride = arguments
    for with_recovery in (True, False):
        print(sweep(scenario, FENCES[fence], Path(folder), int(stride), recover=with_recovery))


if __name__ == "__main__":
    main(sys.argv[1:])
