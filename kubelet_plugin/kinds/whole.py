"""Whole GPUs: ``gpu-<minor>``, also as replicas of one, ``gpu-<minor>-replica-<n>``.

A GPU of a generation that divides itself at will may be in MIG mode when a claim wants all of it: then the mode is
turned off first. Nothing of that is undone, since claims of MIG devices turn it on themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from api.claim_config import ClaimConfig, FractionConfig, GpuConfig
from api.mig_policy import MigMode
from dra_driver.cdi.spec import ContainerEdits
from dra_driver.devices.model import DeviceKind
from dra_driver.devices.naming import GpuName, minor_of, read_name
from dra_driver.devices.policy import toggles_without_reset
from dra_driver.errors import DeviceNotFound, HardwareError
from dra_driver.hardware.model import Gpu, Machine
from kubelet_plugin.claims.absent import absent_device
from kubelet_plugin.claims.configs import WITHOUT_SHARING, TakenConfig
from kubelet_plugin.claims.entry import HeldDevice, StepRecord
from kubelet_plugin.claims.model import ClaimRef
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.hardware.mig import MigHardware, MigNow, look
from kubelet_plugin.kinds.gpus import gpu_locks, gpu_with, looking_locks
from kubelet_plugin.kinds.in_the_way import InTheWay, removable, remove
from kubelet_plugin.prepare.kind import ClaimDevice, Kind, MakerPlan, Mended, Others, Place, Refusal, Step, StepRunner

logger = logging.getLogger(__name__)

MODE_OFF: Final = "MigModeOff"


class GpuEdits(Protocol):
    """What is needed of ``dra_driver.cdi.edits.DriverEdits``."""

    def gpu(self, gpu: Gpu) -> ContainerEdits:
        """Raises ``HardwareError``."""
        ...


@dataclass(frozen=True, slots=True)
class GpuPlace:
    """A whole GPU, with everything on it. ``replica``: which of the devices that stand for it and do not exclude each
    other; None for the GPU itself."""

    gpu: Gpu
    replica: int | None = None

    @property
    def gpu_uuid(self) -> str:
        return self.gpu.uuid

    def excludes(self, other: Place) -> bool:
        beside = self.replica is not None and isinstance(other, GpuPlace) and other.replica is not None
        return other.gpu_uuid == self.gpu.uuid and not beside


class WholeGpus(Kind):
    """``hardware``: of MIG, which has to be off."""

    name = "gpu"
    takes = TakenConfig(DeviceKind.GPU, GpuConfig().normalize(), also=(FractionConfig,))

    def __init__(self, hardware: MigHardware, edits: GpuEdits, policy: NodePolicy) -> None:
        self._hardware = hardware
        self._edits = edits
        self._policy = policy

    def names(self, device_name: str) -> bool:
        return isinstance(read_name(device_name), GpuName)

    def find(self, device_name: str, machine: Machine) -> GpuPlace:
        name = read_name(device_name)
        if name is None:
            raise absent_device(device_name, machine)
        return GpuPlace(gpu_with(name.minor, device_name, machine), name.replica)

    def locks(self, device_name: str, gpu_uuid: str) -> tuple[str, ...]:
        return gpu_locks(gpu_uuid)

    def admin_locks(self, place: Place) -> tuple[str, ...]:
        return looking_locks(_gpu(place))

    def refuses(self, config: ClaimConfig, *, honoured: bool) -> Refusal | None:
        if honoured or not isinstance(config, GpuConfig) or config.sharing is None:
            return None
        return Refusal("sharing.strategy", config.sharing.strategy, WITHOUT_SHARING)

    def look(self, devices: Sequence[ClaimDevice]) -> Mapping[str, MigNow]:
        """By GPU UUID; GPUs without MIG are left out."""
        gpus = {gpu.uuid for gpu in (_gpu(device.place) for device in devices) if gpu.mig is not None}
        return {uuid: look(self._hardware, uuid) for uuid in sorted(gpus)}

    def plan(self, devices: Sequence[ClaimDevice], seen: Mapping[str, MigNow], others: Others) -> MakerPlan:
        steps: dict[Step, None] = {}
        removals: dict[InTheWay, None] = {}
        for device in devices:
            now = seen.get(device.place.gpu_uuid)
            if now is not None and now.enabled:
                removals.update(dict.fromkeys(self._in_the_way(device, now)))
                steps[TurnMigModeOff(device.place.gpu_uuid)] = None
        return MakerPlan(tuple(steps), tuple(removals))

    def _in_the_way(self, device: ClaimDevice, now: MigNow) -> tuple[InTheWay, ...]:
        """What has to be removed before MIG mode can be turned off. Other claims' instances were no reason to come
        here: a claim of any of them keeps the whole GPU out."""
        gpu, name, policy = _gpu(device.place), device.allocated.device, self._policy.mig(_gpu(device.place))
        may_toggle = policy.mode is MigMode.DYNAMIC and toggles_without_reset(gpu)
        if not may_toggle or device.allocated.admin_access:
            raise DeviceNotFound(
                f"device {name} (GPU {gpu.uuid}) is in MIG mode and cannot be used as a whole",
                hint="switch MIG mode off on that GPU, or ask for a MIG device",
            )
        return removable(name, gpu.uuid, now.instances, policy)

    def again(self, record: StepRecord) -> Step:
        return TurnMigModeOff(record.arguments["gpu"])

    def runners(self) -> Mapping[str, StepRunner]:
        return {MODE_OFF: MigModeOffRunner(self._hardware)}

    def remove(self, removal: InTheWay) -> None:
        remove(self._hardware, removal)

    def edits(self, place: Place) -> ContainerEdits:
        return self._edits.gpu(_gpu(place))

    def mend(self, claim: ClaimRef, devices: Sequence[HeldDevice], machine: Callable[[], Machine]) -> Mended:
        """Only which GPU it is, so that it is locked; where the hardware is not known the claim can end without."""
        try:
            now = machine()
        except HardwareError as error:
            logger.info("claim %s: the GPUs of its lost record are not known: %s", claim.uid, error)
            return Mended(tuple(devices))
        gpus = (now.with_minor(minor_of(held.prepared.device_name)) for held in devices)
        found = zip(devices, gpus, strict=True)
        known = (held if gpu is None or held.gpu_uuid else replace(held, gpu_uuid=gpu.uuid) for held, gpu in found)
        return Mended(tuple(known))


@dataclass(frozen=True, slots=True)
class TurnMigModeOff:
    """A whole GPU works only with MIG mode off. Nothing is undone: MIG devices turn it on themselves."""

    gpu_uuid: str

    kind = MODE_OFF

    def does(self) -> str:
        return f"turn MIG mode of GPU {self.gpu_uuid} off"

    def undo_does(self) -> str:
        return "nothing"

    def done_when(self) -> str:
        return "it is off"

    def record(self) -> StepRecord:
        return StepRecord(self.kind, {"gpu": self.gpu_uuid})


class MigModeOffRunner:
    """MIG mode, off, for a whole GPU."""

    do_needs_intent = True
    undo_needs_intent = False
    survives_reboot = False

    def __init__(self, hardware: MigHardware) -> None:
        self._hardware = hardware

    def observe(self, step: TurnMigModeOff, done: Sequence[StepRecord]) -> Mapping[str, str] | None:
        enabled, _pending = self._hardware.mode(step.gpu_uuid)
        return None if enabled else {}

    def do(self, step: TurnMigModeOff, done: Sequence[StepRecord]) -> Mapping[str, str]:
        enabled, _pending = self._hardware.mode(step.gpu_uuid)
        if enabled:
            self._hardware.set_mode(step.gpu_uuid, False)
        return {}

    def undo(self, claim_uid: str, record: StepRecord) -> None:
        """Nothing: a claim of a MIG device turns the mode on itself."""


def _gpu(place: Place) -> Gpu:
    if not isinstance(place, GpuPlace):
        raise TypeError(f"{place} is no whole GPU")
    return place.gpu
