"""Kills a plugin at every file operation of a prepare or unprepare, and looks at what the next one makes of it.

Run in a process of its own (``python -m tests.crash.prepare_sweep SCENARIO DEVICES FOLDER STRIDE``), because it forks:
the child does the operation and ends itself with ``os._exit`` just before the n-th file operation under the node's
folder (an audit hook sees open, rename, remove, mkdir and locks), leaving locks, temporary files and half-done work as
a kill would. The parent then plays the next plugin process. n goes up by STRIDE until the child gets through. Prints the
number of kills.

DEVICES is ``whole``, ``sliced`` (whole GPUs with a time-slice interval, one of them shared), ``mig``, or ``toy``: a kind that
only the tests have. The simulated GPUs keep their state in a file of the node's folder, so with ``sliced`` and ``mig`` there
is a kill around every change of the hardware too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from api.claim_config import TimeSliceInterval
from dra_driver.errors import DriverError
from dra_driver.kube.interface import Obj
from kubelet_plugin.claims.entry import ClaimState
from kubelet_plugin.claims.model import Operation
from kubelet_plugin.kinds.mps.member import Member
from kubelet_plugin.kinds.mps.step import replicas_group
from kubelet_plugin.prepare.engine import PrepareEngine
from kubelet_plugin.prepare.pilot import Outcome
from tests.kubelet_plugin.kinds.mps.claims import Shared, mig_mps
from tests.kubelet_plugin.prepare.node import TestNode, claim, config, opaque, ref, result
from tests.kubelet_plugin.prepare.on_this_thread import fly
from tests.kubelet_plugin.prepare.simulated_node import SimulatedNode, first_gpus
from tests.kubelet_plugin.prepare.toy_node import ToyNode

KILLED = 9
EVENTS = frozenset(("open", "os.rename", "os.remove", "os.mkdir", "os.chmod", "fcntl.fcntl"))
DRIVER_FILES = ("host/usr/", "host/etc/", "root/usr/", "root/etc/")
UIDS = ("u1", "u2")
BYSTANDER = "bystander"


def run(engine: PrepareEngine, operation: Operation, *uids: str) -> dict[str, Outcome]:
    """The operation on this very thread: a process that forks has no others."""
    return {uid: fly(engine, operation, ref(uid)) for uid in uids}


def succeeded(answers: dict[str, Outcome]) -> None:
    failed = [answer for answer in answers.values() if isinstance(answer, DriverError)]
    assert not failed, failed


def _start(node: TestNode, engine: PrepareEngine) -> None:
    engine.start()


@dataclass(frozen=True)
class Devices:
    """What the claims of a sweep are about. ``check`` looks at the hardware; its argument is the prepared claims.

    ``middle``: a file operation in the middle of a prepare, and of an unprepare where that is asked for. ``claim``: the
    claim of a UID and of names of devices. ``use``: what becomes of claims between prepare and unprepare. ``start``:
    what a plugin does at its start.
    """

    claims: dict[str, tuple[str, ...]]
    make: Callable[[Path], TestNode]
    check: Callable[[TestNode, set[str]], None]
    middle: int
    claim: Callable[[str, tuple[str, ...]], Obj] = lambda uid, names: claim(uid, *_results(names))
    use: Callable[[TestNode, Sequence[str]], None] = lambda node, uids: None
    start: Callable[[TestNode, PrepareEngine], None] = _start


def _results(names: Sequence[str], **more: str) -> tuple[Obj, ...]:
    return tuple(result(name, f"r{number}", **more) for number, name in enumerate(names))


def _make_simulated(folder: Path) -> SimulatedNode:
    is_new = not folder.exists()
    node = SimulatedNode(folder, first_gpus("h100-sxm5-80gb", 4))
    if is_new:
        node.by_hand(node.machine.gpus[2].uuid, FOREIGN_PROFILE, 0)
    return node


def _check_instances(node: TestNode, prepared: set[str]) -> None:
    """Exactly the prepared claims' instances and the one made by hand; MIG mode is on where there are some."""
    assert isinstance(node, SimulatedNode)
    minors = {gpu.uuid: gpu.minor for gpu in node.machine.gpus}
    there = {
        f"gpu-{minors[gpu]}-mig-{each.profile_name.replace('.', '')}-{each.profile_id}-{each.placement.start}"
        for gpu, instances in node.everything().items()
        for each in instances
    }
    names = (name for uid in prepared for name in MIG.claims[uid])
    assert there == {FOREIGN, *(name for name in names if "mig" in name)}
    for gpu in node.machine.gpus:
        assert node.control.mode(gpu.uuid)[0] is any(name.startswith(f"gpu-{gpu.minor}-") for name in there)


def _make_sliced(folder: Path) -> SimulatedNode:
    node = SimulatedNode(folder, first_gpus("h100-sxm5-80gb", 4))
    node.gates = frozenset(("TimeSlicingSettings",))
    return node


def _sliced_claim(uid: str, names: tuple[str, ...]) -> Obj:
    """Of shares, one for each claim, with the same interval."""
    share = str(UUID(int=1 + len(names)))
    slices = config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Long"}})
    shares = {} if uid == BYSTANDER else {"shareID": share}
    return claim(uid, *_results(names, **shares), configs=[opaque(slices)])


def _check_intervals(node: TestNode, prepared: set[str]) -> None:
    """Long on exactly the prepared claims' GPUs."""
    assert isinstance(node, SimulatedNode)
    names = {name for uid in prepared for name in SLICED.claims[uid]}
    for gpu in node.machine.gpus:
        is_long = node.time_slices.interval(gpu.uuid) is TimeSliceInterval.LONG
        assert is_long is (f"gpu-{gpu.minor}" in names), f"gpu-{gpu.minor} with {prepared}"


def _make_with_mps(folder: Path) -> SimulatedNode:
    node = SimulatedNode(folder, first_gpus("h100-sxm5-80gb", 4))
    node.gates = frozenset(("MPSSupport",))
    node.sharing = Shared()
    return node


def _mps_claim(uid: str, names: tuple[str, ...]) -> Obj:
    """Of a MIG device with a daemon of its own, and of shares of a GPU that is MPS replicas."""
    share = {} if any("mig" in name for name in names) else {"shareID": str(UUID(int=1 + len(uid)))}
    return claim(uid, *_results(names, **share), configs=[mig_mps()])


def _check_groups(node: TestNode, prepared: set[str]) -> None:
    """Exactly the prepared claims' groups, with the MIG devices that there are."""
    assert isinstance(node, SimulatedNode)
    replicas = {replicas_group(Member(node.machine.gpus[1].uuid, "gpu-1"))} if {"u2", BYSTANDER} & prepared else set()
    own = [name for name in node.supervisor.ids() if name.startswith("u1-")]
    assert set(node.supervisor.ids()) == {*replicas, *own}
    assert len(own) == ("u1" in prepared)
    made = {compute.uuid for each in node.everything().values() for gpu in each for compute in gpu.compute_instances}
    groups = {uuid for status in node.supervisor.now() for uuid in status.group.devices if uuid.startswith("MIG-")}
    assert groups == made


def _check_toys(node: TestNode, prepared: set[str]) -> None:
    """Exactly the prepared claims' files."""
    assert isinstance(node, ToyNode)
    names = (name for uid in prepared for name in TOY.claims[uid])
    assert node.made() == sorted(name for name in names if name.startswith("toy-"))


FOREIGN, FOREIGN_PROFILE = "gpu-2-mig-2g20gb-14-0", 14
WHOLE = Devices({"u1": ("gpu-1",), "u2": ("gpu-2",), BYSTANDER: ("gpu-3",)}, TestNode, lambda node, prepared: None, 9)
MIG = Devices(
    {
        "u1": ("gpu-1-mig-1g10gb-19-0", "gpu-1-mig-3g40gb-9-4"),
        "u2": ("gpu-2-mig-1g10gb-19-6",),
        BYSTANDER: ("gpu-3-mig-4g40gb-5-0",),
    },
    _make_simulated,
    _check_instances,
    45,
)
SLICED = Devices(
    {"u1": ("gpu-1", "gpu-2"), "u2": ("gpu-1",), BYSTANDER: ("gpu-3",)},
    _make_sliced,
    _check_intervals,
    20,
    _sliced_claim,
)
TOY = Devices({"u1": ("toy-ant", "gpu-1"), "u2": ("toy-bear",), BYSTANDER: ("toy-car",)}, ToyNode, _check_toys, 12)
MPS = Devices(
    {"u1": ("gpu-2-mig-1g10gb-19-0",), "u2": ("gpu-1",), BYSTANDER: ("gpu-1",)},
    _make_with_mps,
    _check_groups,
    30,
    _mps_claim,
)
DEVICES = {"mps": MPS, "whole": WHOLE, "sliced": SLICED, "mig": MIG, "toy": TOY}


def node_in(folder: Path, devices: Devices) -> TestNode:
    node = devices.make(folder)
    for uid, names in devices.claims.items():
        node.claims.add(devices.claim(uid, names))
    engine = node.engine()
    succeeded(run(engine, Operation.PREPARE, BYSTANDER))
    devices.use(node, (BYSTANDER,))
    return node


def _counts(path: str, folder: Path) -> bool:
    """The driver's files are only read, and read again or not by how new they are: they would make the count differ."""
    inner = path.removeprefix(f"{folder}/")
    return path.startswith(str(folder)) and not inner.startswith(DRIVER_FILES)


def killed_at(position: int, folder: Path, act: Callable[[], None]) -> bool:
    """Whether the child that does ``act`` was killed at its ``position``-th file operation."""
    child = os.fork()
    if child == 0:
        left = position

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event not in EVENTS:
                return
            if event != "fcntl.fcntl" and not _counts(str(arguments[0]), folder):
                return
            left -= 1
            if left == 0:
                os._exit(KILLED)

        sys.addaudithook(hook)
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - the child must not return into the parent's program
            print(f"child failed: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), f"child ended with {code}"
    return code == KILLED


def check_consistent(node: TestNode, engine: PrepareEngine, devices: Devices) -> None:
    """After recovery: no half-done claim, a CDI file for exactly the prepared ones, and the bystander untouched."""
    entries = engine.entries()
    assert {entry.state for entry in entries.values()} <= {ClaimState.COMPLETED}
    assert set(node.cdi.claim_uids()) == set(entries)
    wanted = zip(node.cdi_devices(BYSTANDER), devices.claims[BYSTANDER], strict=True)
    assert all(found.startswith(f"{BYSTANDER}-{name}") for found, name in wanted)  # a share's has its id at the end
    assert node.left_overs() == []
    devices.check(node, set(entries))


def crash_in_prepare_then_retry(
    node: TestNode, devices: Devices, position: int, folder: Path, *, recover: bool
) -> bool:
    before = node.engine(start=False)
    killed = killed_at(position, folder, lambda: succeeded(run(before, Operation.PREPARE, *UIDS)))
    after = node.engine(start=recover)
    if recover:
        check_consistent(node, after, devices)
    answers = run(after, Operation.PREPARE, *UIDS)
    succeeded(answers)
    assert node.cdi.claim_uids() == (BYSTANDER, *UIDS)
    assert run(node.engine(), Operation.PREPARE, *UIDS) == answers
    devices.use(node, UIDS)
    succeeded(run(after, Operation.UNPREPARE, *UIDS))
    check_consistent(node, node.engine(), devices)
    return killed


def crash_in_prepare_then_unprepare(
    node: TestNode, devices: Devices, position: int, folder: Path, *, recover: bool
) -> bool:
    before = node.engine(start=False)
    killed = killed_at(position, folder, lambda: succeeded(run(before, Operation.PREPARE, *UIDS)))
    after = node.engine(start=recover)
    succeeded(run(after, Operation.UNPREPARE, *UIDS))
    assert node.cdi.claim_uids() == (BYSTANDER,)
    check_consistent(node, node.engine(), devices)
    return killed


def crash_in_unprepare(node: TestNode, devices: Devices, position: int, folder: Path, *, recover: bool) -> bool:
    before = node.engine(start=False)
    succeeded(run(before, Operation.PREPARE, *UIDS))
    devices.use(node, UIDS)
    killed = killed_at(position, folder, lambda: succeeded(run(before, Operation.UNPREPARE, *UIDS)))
    after = node.engine(start=recover)
    if recover:
        check_consistent(node, after, devices)
    succeeded(run(after, Operation.UNPREPARE, *UIDS))
    assert node.cdi.claim_uids() == (BYSTANDER,)
    check_consistent(node, node.engine(), devices)
    return killed


def crash_in_recovery(node: TestNode, devices: Devices, position: int, folder: Path, *, recover: bool) -> bool:
    """A kill in the middle of the start that follows a kill."""
    before = node.engine(start=False)
    killed_at(devices.middle, folder, lambda: succeeded(run(before, Operation.PREPARE, *UIDS)))
    starting = node.engine(start=False)
    killed = killed_at(position, folder, lambda: devices.start(node, starting))
    after = node.engine(start=recover)
    succeeded(run(after, Operation.PREPARE, *UIDS))
    devices.use(node, UIDS)
    succeeded(run(after, Operation.UNPREPARE, *UIDS))
    check_consistent(node, node.engine(), devices)
    return killed


def crash_in_recovery_of_unprepare(
    node: TestNode, devices: Devices, position: int, folder: Path, *, recover: bool
) -> bool:
    before = node.engine(start=False)
    succeeded(run(before, Operation.PREPARE, *UIDS))
    devices.use(node, UIDS)
    assert killed_at(devices.middle, folder, lambda: succeeded(run(before, Operation.UNPREPARE, *UIDS)))
    starting = node.engine(start=False)
    killed = killed_at(position, folder, lambda: devices.start(node, starting))
    after = node.engine(start=recover)
    if recover:
        check_consistent(node, after, devices)
    succeeded(run(after, Operation.UNPREPARE, *UIDS))
    check_consistent(node, node.engine(), devices)
    return killed


SCENARIOS: dict[str, Callable[..., bool]] = {
    "prepare-retry": crash_in_prepare_then_retry,
    "prepare-unprepare": crash_in_prepare_then_unprepare,
    "unprepare": crash_in_unprepare,
    "recovery": crash_in_recovery,
    "recovery-unprepare": crash_in_recovery_of_unprepare,
}


def sweep(scenario: str, devices: Devices, folder: Path, stride: int, *, recover: bool) -> int:
    """How many different kills there were until the operation got through; each ``stride``-th is tried."""
    position = 1
    while True:
        here = folder / f"{scenario}-{position}-{recover}"
        if not SCENARIOS[scenario](node_in(here, devices), devices, position, here, recover=recover):
            return position // stride
        position += stride


def main(arguments: Sequence[str]) -> None:
    scenario, devices, folder, stride = arguments
    for with_recovery in (True, False):
        print(sweep(scenario, DEVICES[devices], Path(folder), int(stride), recover=with_recovery))


if __name__ == "__main__":
    main(sys.argv[1:])
