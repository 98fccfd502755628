"""MIG devices: ``gpu-<minor>-mig-<profile>-<profile id>-<placement start>``, made for a claim or there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from api.claim_config import ClaimConfig, FractionConfig, MigDeviceConfig, SharingStrategy
from dra_driver.cdi.spec import ContainerEdits
from dra_driver.devices.model import DeviceKind
from dra_driver.devices.naming import MigName, read_name
from dra_driver.errors import DeviceNotFound
from dra_driver.hardware.model import Gpu, Machine, MigState
from kubelet_plugin.claims.absent import DELETE_CLAIM, absent_device
from kubelet_plugin.claims.configs import WITHOUT_SHARING, TakenConfig
from kubelet_plugin.claims.entry import ClaimEntry, HeldDevice, StepRecord
from kubelet_plugin.claims.model import ClaimRef
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.hardware.mig import MigHardware, MigNow, look
from kubelet_plugin.kinds.gpus import gpu_locks, gpu_with, looking_locks
from kubelet_plugin.kinds.in_the_way import InTheWay, remove
from kubelet_plugin.kinds.mig.capabilities import CapabilityReader, capability_nodes
from kubelet_plugin.kinds.mig.device import MigDevice, mig_of
from kubelet_plugin.kinds.mig.owners import held_mig_devices, owners
from kubelet_plugin.kinds.mig.place import from_arguments, place_of
from kubelet_plugin.kinds.mig.planning import is_made, making_steps, plan_mig, steps_of
from kubelet_plugin.kinds.mig.refused import RefusedPlacements
from kubelet_plugin.kinds.mig.runners import mig_runners
from kubelet_plugin.kinds.mig.steps import COMPUTE_INSTANCE, GPU_INSTANCE, MigStep, recorded_step
from kubelet_plugin.prepare.kind import ClaimDevice, Kind, MakerPlan, Mended, Others, Place, Refusal, StepRunner

_PROFILES_NAMED = 24


class MigEdits(Protocol):
    """What is needed of ``dra_driver.cdi.edits.DriverEdits``."""

    def mig_parent(self, gpu: Gpu, profile: str) -> ContainerEdits:
        """Raises ``HardwareError``."""
        ...


class MigDevices(Kind):
    """``refused``: where placements are remembered that NVML does not give."""

    name = "mig"
    takes = TakenConfig(DeviceKind.MIG, MigDeviceConfig().normalize(), also=(FractionConfig,))

    def __init__(
        self,
        hardware: MigHardware,
        capabilities: CapabilityReader,
        refused: RefusedPlacements,
        edits: MigEdits,
        policy: NodePolicy,
    ) -> None:
        self._hardware = hardware
        self._capabilities = capabilities
        self._edits = edits
        self._policy = policy
        self._runners = mig_runners(hardware, refused)

    # -- names and configuration --------------------------------------------------------------------------------------

    def names(self, device_name: str) -> bool:
        return isinstance(read_name(device_name), MigName)

    def find(self, device_name: str, machine: Machine) -> MigDevice:
        name = read_name(device_name)
        if not isinstance(name, MigName):
            raise absent_device(device_name, machine)
        gpu = gpu_with(name.minor, device_name, machine)
        place = place_of(name, gpu)
        if place is None:
            raise DeviceNotFound(
                f"device {device_name} does not exist: {gpu.product_name} {gpu.uuid} {_has_profiles(gpu)}",
                hint=f"the claim was allocated for another GPU or driver version; {DELETE_CLAIM}",
            )
        return MigDevice(gpu, place, self._policy.mig(gpu), name.replica)

    def locks(self, device_name: str, gpu_uuid: str) -> tuple[str, ...]:
        return gpu_locks(gpu_uuid)

    def admin_locks(self, place: Place) -> tuple[str, ...]:
        return looking_locks(mig_of(place).gpu)

    def refuses(self, config: ClaimConfig, *, honoured: bool) -> Refusal | None:
        """Time slices of a MIG device cannot be set; NVIDIA's driver takes the request and does nothing either."""
        if honoured or not isinstance(config, MigDeviceConfig) or config.sharing is None:
            return None
        if config.sharing.strategy is SharingStrategy.TIME_SLICING:
            return None
        return Refusal("sharing.strategy", config.sharing.strategy, WITHOUT_SHARING)

    # -- steps --------------------------------------------------------------------------------------------------------

    def look(self, devices: Sequence[ClaimDevice]) -> Mapping[str, MigNow]:
        """By GPU UUID."""
        return {uuid: look(self._hardware, uuid) for uuid in sorted({device.place.gpu_uuid for device in devices})}

    def plan(self, devices: Sequence[ClaimDevice], seen: Mapping[str, MigNow], others: Others) -> MakerPlan:
        return plan_mig(devices, seen, owners(others.entries, others.machine, self._policy.boot_id))

    def making_steps(self, devices: Sequence[ClaimDevice]) -> tuple[MigStep, ...]:
        return making_steps(devices)

    def still_needed(self, record: StepRecord, others: Sequence[ClaimEntry]) -> bool:
        """Only beside a lost record: it does not tell admin access, so the instance may be another claim's."""
        if record.kind not in (GPU_INSTANCE, COMPUTE_INSTANCE):
            return False
        place = from_arguments(record.arguments)
        return any(
            (held.gpu_uuid, name.profile_id, name.start, name.compute_start)
            == (place.gpu_uuid, place.profile_id, place.placement.start, place.compute_start)
            for other in others
            for held, name, _gpu in held_mig_devices(other.devices, Machine("", 0))
        )

    def again(self, record: StepRecord) -> MigStep:
        return recorded_step(record)

    def runners(self) -> Mapping[str, StepRunner]:
        return self._runners

    def remove(self, removal: InTheWay) -> None:
        remove(self._hardware, removal)

    # -- edits --------------------------------------------------------------------------------------------------------

    def edits(self, place: Place) -> ContainerEdits:
        """What the device needs of its GPU."""
        device = mig_of(place)
        return self._edits.mig_parent(device.gpu, device.at.profile_name)

    def late_edits(self, device: ClaimDevice, done: Sequence[StepRecord]) -> ContainerEdits:
        """The nodes of its two instances, whose numbers are known once they are there."""
        nodes = capability_nodes(mig_of(device.place), done, self._hardware, self._capabilities)
        return ContainerEdits(device_nodes=tuple(nodes))

    # -- what has become of it ----------------------------------------------------------------------------------------

    def trouble(self, device: HeldDevice, entry: ClaimEntry, machine: Machine) -> str:
        for _held, name, gpu in held_mig_devices((device,), machine):
            if gpu is not None and gpu.mig is not None and not _is_there(name, gpu, gpu.mig):
                return f"somebody has destroyed this MIG device of GPU {gpu.uuid}"
        return ""

    def mend(self, claim: ClaimRef, devices: Sequence[HeldDevice], machine: Callable[[], Machine]) -> Mended:
        """A device's name says where its instance is, so the claim can be unprepared as a whole."""
        if not any(held_mig_devices(devices, Machine("", 0))):
            return Mended(tuple(devices))
        mended: dict[HeldDevice, HeldDevice] = {}
        made: list[MigDevice] = []
        now = machine()
        for held, name, gpu in held_mig_devices(devices, now):
            place = place_of(name, gpu) if gpu else None
            if gpu is not None and place is not None:
                device = MigDevice(gpu, place, self._policy.mig(gpu))
                mended[held] = replace(held, gpu_uuid=gpu.uuid)
                made += [device] if is_made(device, admin_access=False) else []
        known = tuple(mended.get(held, held) for held in devices)
        return Mended(known, tuple(step.record() for step in steps_of(made)))


def _is_there(name: MigName, gpu: Gpu, mig: MigState) -> bool:
    place = place_of(name, gpu)
    found = place.gpu_instance(mig.instances) if place else None
    return place is not None and found is not None and any(map(place.is_compute, found.compute_instances))


def _has_profiles(gpu: Gpu) -> str:
    profiles = gpu.mig.profiles if gpu.mig else ()
    if not profiles:
        return "has no MIG profiles"
    listed = [
        f"{profile.name} (id {profile.id}) at {', '.join(str(place.start) for place in profile.placements)}"
        for profile in profiles[:_PROFILES_NAMED]
    ]
    return f"has these MIG profiles and placements: {'; '.join(listed)}"
