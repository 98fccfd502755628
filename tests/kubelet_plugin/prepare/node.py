"""A node for tests of the prepare engine: claims in memory, a driver root, a machine, and an engine on real folders."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dra_driver.cdi.edits import DriverEdits
from dra_driver.cdi.roots import DriverRoots, Root
from dra_driver.cdi.store import CdiStore
from dra_driver.devices.policy import DevicePolicy, MigPolicy
from dra_driver.errors import DriverError, HardwareUnavailable
from dra_driver.hardware.model import Gpu, Machine
from dra_driver.kube.interface import RESOURCE_CLAIMS, NotFound, Obj, Resource
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, HeldDevice, StepRecord
from kubelet_plugin.claims.model import ClaimRef, Operation, PreparedDevice
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.hardware.mig import MigHardware
from kubelet_plugin.hardware.time_slices import TimeSliceHardware
from kubelet_plugin.kinds import NodeTools, build_kinds
from kubelet_plugin.kinds.fence.cgroups import CgroupFences
from kubelet_plugin.kinds.fractions import NodeFences, NothingFenced
from kubelet_plugin.kinds.mig.capabilities import CapabilityReader
from kubelet_plugin.kinds.mig.refused import RefusedPlacements
from kubelet_plugin.kinds.mps.states import GroupStates
from kubelet_plugin.kinds.sharing import NothingShared, SharingInForce
from kubelet_plugin.memory_fence.keeper import Fences
from kubelet_plugin.memory_fence.room import Room
from kubelet_plugin.prepare.apply import Applier
from kubelet_plugin.prepare.cdi_file import CDI_FILE, CdiFileRunner
from kubelet_plugin.prepare.checkpoint import Checkpoint, CheckpointDamage
from kubelet_plugin.prepare.checkpoint_format import decode_file
from kubelet_plugin.prepare.engine import PrepareEngine
from kubelet_plugin.prepare.kinds import Kinds
from kubelet_plugin.prepare.locks import NamedLocks
from kubelet_plugin.prepare.recovery import lost_records
from tests.cdi.driver_root import VERSION, small_root
from tests.kubelet_plugin.kinds.fake_time_slices import FakeTimeSlices
from tests.kubelet_plugin.kinds.mig.fake import FakeMig, fake_capabilities
from tests.kubelet_plugin.kinds.mps.fake import FakeSupervisor

DRIVER, NODE, BOOT = "gpu.nvidia.com", "node-0", "boot-1"
_DEFAULTS = MigPolicy()


def gpu(minor: int) -> Gpu:
    return Gpu(minor, minor, f"GPU-{minor}", "NVIDIA H100", "Nvidia", "Hopper", "9.0", f"0000:{minor:02x}:00.0")


def machine(gpus: int = 4) -> Machine:
    return Machine(VERSION, 12040, tuple(map(gpu, range(gpus))))


def result(device: str, request: str = "gpu", **more: Any) -> Obj:
    return {"request": request, "driver": DRIVER, "pool": NODE, "device": device, **more}


def opaque(parameters: Any, requests: Sequence[str] = (), source: str = "FromClaim", driver: str = DRIVER) -> Obj:
    entry: Obj = {"source": source, "opaque": {"driver": driver, "parameters": parameters}}
    if requests:
        entry["requests"] = list(requests)
    return entry


def config(kind: str = "GpuConfig", **fields: Any) -> Obj:
    return {"apiVersion": "resource.nvidia.com/v1beta1", "kind": kind, **fields}


def claim(uid: str, *results: Obj, configs: Sequence[Obj] = (), name: str = "") -> Obj:
    """An allocated claim ``default/<name or uid>``."""
    devices: Obj = {"results": list(results)}
    if configs:
        devices["config"] = list(configs)
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"namespace": "default", "name": name or uid, "uid": uid},
        "status": {"allocation": {"devices": devices}},
    }


def ref(uid: str, name: str = "") -> ClaimRef:
    return ClaimRef("default", name or uid, uid)


def entry(uid: str, device: str = "gpu-0", state: ClaimState = ClaimState.COMPLETED, boot_id: str = BOOT) -> ClaimEntry:
    """A record as the engine makes it for :func:`claim` of one whole GPU."""
    answer = PreparedDevice(("gpu",), NODE, device, (f"k8s.gpu.nvidia.com/claim={uid}-{device}",))
    return ClaimEntry(ref(uid), state, boot_id, (HeldDevice(answer, f"GPU-{device[4:]}"),), (StepRecord("CDIFile"),))


class Claims:
    """The API server's ResourceClaims, by name. ``gate``, when set, holds every read until it is opened."""

    def __init__(self) -> None:
        self.by_name: dict[str, Obj] = {}
        self.reads = 0
        self.error: Exception | None = None
        self.gate: threading.Event | None = None
        self._lock = threading.Lock()

    def add(self, *claims: Obj) -> None:
        for obj in claims:
            self.by_name[obj["metadata"]["name"]] = obj

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        assert (resource, namespace) == (RESOURCE_CLAIMS, "default")
        with self._lock:
            self.reads += 1
        if self.gate is not None:
            assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        if name not in self.by_name:
            raise NotFound(f"resourceclaims {name!r} not found")
        return copy.deepcopy(self.by_name[name])


@dataclass
class Listener:
    damages: list[CheckpointDamage] = field(default_factory=list)
    late: list[tuple[Operation, ClaimRef, DriverError]] = field(default_factory=list)
    told: threading.Event = field(default_factory=threading.Event)
    postponed: list[tuple[str, ...]] = field(default_factory=list)

    def recovery_postponed(self, claims: Sequence[str]) -> None:
        self.postponed.append(tuple(claims))

    def checkpoint_damaged(self, damage: CheckpointDamage) -> None:
        self.damages.append(damage)

    def failed_late(self, operation: Operation, claim: ClaimRef, error: DriverError) -> None:
        self.late.append((operation, claim, error))
        self.told.set()


def no_room(shares: Fences) -> Room:
    raise HardwareUnavailable("a test node limits no memory by cgroup")


class TestNode:
    """Folders and collaborators of a plugin; :meth:`engine` makes as many engines over them as a test needs."""

    __test__ = False

    def __init__(
        self, folder: Path, gpus: int = 4, *, on: Machine | None = None, policy: MigPolicy = _DEFAULTS
    ) -> None:
        """``folder`` may be another node's, in this or another process: then that node's files are used.

        ``on``: a machine with MIG, in place of one of ``gpus`` GPUs without.
        """
        self.state = folder / "state"
        self.root = folder / "root"
        self.machine = on or machine(gpus)
        if not self.root.exists():
            small_root(self.root, gpus=len(self.machine.gpus))
        self.policy = policy
        self.fake_mig = FakeMig(self.machine)
        self.mig: MigHardware = self.fake_mig
        self.capabilities: CapabilityReader = fake_capabilities
        self.refused = RefusedPlacements()
        self.time_slices: TimeSliceHardware = FakeTimeSlices()
        self.plugin_folder = folder / "plugin"
        self.supervisor = FakeSupervisor(self.plugin_folder)
        self.mps_states = GroupStates()
        self.sharing: SharingInForce = NothingShared()
        self.fences: NodeFences = NothingFenced()
        self.cgroup_fences = CgroupFences(folder / "none", no_room, wanted=False)
        self.gates: frozenset[str] = frozenset()
        self.claims = Claims()
        self.cdi = CdiStore(folder / "cdi")
        self.edits = DriverEdits(DriverRoots(Root(self.root), sysfs=self.root / "sys"))
        self.listener = Listener()

    def engine(self, boot_id: str = BOOT, *, start: bool = True, start_seconds: float = 5.0) -> PrepareEngine:
        engine = PrepareEngine(
            api=self.claims,
            driver_name=DRIVER,
            machine=lambda: self.machine,
            cdi=self.cdi,
            edits=self.edits,
            state_folder=self.state,
            kinds=self.kinds(boot_id),
            policy=self.node_policy(boot_id),
            listener=self.listener,
            start_seconds=start_seconds,
        )
        if start:
            engine.start()
        return engine

    def checkpoint(self, boot_id: str = BOOT) -> Checkpoint:
        self.state.mkdir(parents=True, exist_ok=True)
        return Checkpoint(
            self.state,
            boot_id,
            NamedLocks(self.state / "locks"),
            lambda known: lost_records(self.cdi, self.kinds(boot_id), boot_id, known),
            self.listener.checkpoint_damaged,
        )

    def node_policy(self, boot_id: str = BOOT) -> NodePolicy:
        return NodePolicy(NODE, boot_id, DevicePolicy(mig=self.policy), self.gates)

    def kinds(self, boot_id: str = BOOT) -> Kinds:
        """Those of a plugin; a test may have others."""
        policy = self.node_policy(boot_id)
        return build_kinds(
            NodeTools(
                policy=policy,
                edits=self.edits,
                mig=self.mig,
                capabilities=self.capabilities,
                refused=self.refused,
                time_slices=self.time_slices,
                supervisor=self.supervisor,
                mps_states=self.mps_states,
                sharing=self.sharing,
                fences=self.fences,
                cgroup_fences=self.cgroup_fences,
                plugin_folder=self.plugin_folder,
            )
        )

    def applier(self) -> Applier:
        kinds = self.kinds()
        return Applier({**kinds.runners, CDI_FILE: CdiFileRunner(self.cdi, kinds)}, BOOT)

    def device_nodes(self, uid: str) -> list[str]:
        """Paths of the device nodes of all of the claim's devices."""
        spec = self.cdi.read(uid)
        return [node.path for device in spec.devices for node in device.edits.device_nodes] if spec else []

    def cdi_devices(self, uid: str) -> list[str]:
        spec = self.cdi.read(uid)
        return [device.name for device in spec.devices] if spec else []

    def left_overs(self) -> list[str]:
        """Files that no finished claim needs, by name."""
        known = self.checkpoint().entries()
        files = [path.relative_to(self.state) for path in self.state.rglob("*") if path.is_file()]
        file = self.state / "checkpoint.json"
        written = decode_file(file.read_bytes()).entries if file.exists() else {}
        wanted = {"checkpoint.json", "locks", *(f"ended/{uid}" for uid in written)}
        stray = [str(path) for path in files if str(path) not in wanted]
        stray += [uid for uid in self.cdi.claim_uids() if uid not in known]
        stray += [path.name for path in self.cdi.root.glob(".*")] if self.cdi.root.exists() else []
        return stray
