"""Which MIG steps a claim needs, and whether the hardware is as the claim needs it. Pure.

The hardware has been asked under the GPU's lock just before: what the API says is free may be taken by an instance that
somebody made by hand, and NVML would only answer "insufficient resources", whatever is in the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from api.mig_policy import MigMode
from dra_driver.devices.policy import GpuMigPolicy, toggles_without_reset
from dra_driver.errors import DeviceNotFound
from dra_driver.hardware.model import Gpu, GpuInstance
from dra_driver.hardware.nvml import MigModePending, PlacementOccupied
from kubelet_plugin.kinds.mig.hardware import MigNow
from kubelet_plugin.kinds.mig.owners import Owners
from kubelet_plugin.kinds.mig.place import MigPlace, describe, span
from kubelet_plugin.kinds.mig.steps import (
    Afterwards,
    MakeComputeInstance,
    MakeGpuInstance,
    MigModeOff,
    MigModeOn,
    MigStep,
)

_RESET_HINT = (
    "drain the node, turn MIG mode on and reset the GPU: nvidia-smi -mig 1 and nvidia-smi --gpu-reset, each with -i "
)


@dataclass(frozen=True, slots=True)
class WantedDevice:
    """A device of a claim that is about to be prepared. ``place`` None: the whole GPU."""

    name: str
    gpu: Gpu
    place: MigPlace | None
    policy: GpuMigPolicy
    admin_access: bool = False

    @property
    def is_made(self) -> bool:
        """Whether the claim makes the instance; otherwise it has to be there."""
        return self.place is not None and self.policy.mode is MigMode.DYNAMIC and not self.admin_access

    @property
    def needs_look(self) -> bool:
        """Whether the state of MIG matters to it."""
        return self.gpu.mig is not None


@dataclass(frozen=True, slots=True)
class InTheWay:
    """An instance that no claim made, where a claim's has to be, and that the administrator allows to remove."""

    gpu_uuid: str
    instance: GpuInstance

    def does(self) -> str:
        return f"destroy what no claim has made on GPU {self.gpu_uuid}: {describe(self.instance)}"


@dataclass(frozen=True, slots=True)
class MigPlan:
    """``removals`` come first. They need no journal: nothing of them is ever undone."""

    steps: tuple[MigStep, ...] = ()
    removals: tuple[InTheWay, ...] = ()


def plan_mig(devices: Sequence[WantedDevice], now: Mapping[str, MigNow], owners: Owners) -> MigPlan:
    """The plan for ``devices``; ``now`` by GPU UUID. ``owners`` without the claim itself: nothing of it is left.

    Raises DeviceNotFound for an instance that has to be there and is not, PlacementOccupied for one that is in the way,
    and MigModePending where MIG mode is not as needed and cannot be changed.
    """
    removals: dict[tuple[str, int], InTheWay] = {}
    steps: list[MigStep] = []
    for device in devices:
        if not device.needs_look:
            continue
        here = now[device.gpu.uuid]
        in_the_way: tuple[InTheWay, ...] = ()
        if device.place is None:
            in_the_way = _check_whole(device, here, owners)
            steps += [MigModeOff(device.gpu.uuid)] if here.enabled else []
        elif device.is_made:
            in_the_way = _check_place(device, device.place, here, owners)
        else:
            _check_there(device, device.place, here)
        removals.update({(each.gpu_uuid, each.instance.id): each for each in in_the_way})
    return MigPlan((*steps, *making_steps(devices)), tuple(removals.values()))


def making_steps(devices: Sequence[WantedDevice]) -> tuple[MigStep, ...]:
    """What brings the claim's own MIG devices about, each thing once, MIG mode of a GPU before its first instance."""
    return tuple(dict.fromkeys(_making_steps(devices)))


def _making_steps(devices: Sequence[WantedDevice]) -> Iterator[MigStep]:
    for device in devices:
        if device.place is None or not device.is_made:
            continue
        if toggles_without_reset(device.gpu):
            yield MigModeOn(device.gpu.uuid, Afterwards.KEPT if device.policy.keep_mode else Afterwards.OFF)
        yield MakeGpuInstance(device.place)
        yield MakeComputeInstance(device.place)


def _check_place(device: WantedDevice, place: MigPlace, now: MigNow, owners: Owners) -> tuple[InTheWay, ...]:
    """What has to be removed for the device."""
    gpu = device.gpu
    if not now.enabled:
        if not toggles_without_reset(gpu):
            raise MigModePending(
                f"device {device.name} needs MIG mode, which is off on GPU {gpu.uuid} ({gpu.product_name}) and is "
                "turned on only by a reset of the GPU",
                hint=f"{_RESET_HINT}{gpu.minor}",
            )
        return ()
    strangers: list[InTheWay] = []
    for instance in now.instances:
        if not instance.placement.overlaps(place.placement):
            continue
        owner = owners.of(gpu.uuid, instance)
        if owner is None:
            strangers.append(InTheWay(gpu.uuid, instance))
        elif place.compute_start is None or not place.is_of(instance):
            raise PlacementOccupied(
                f"device {device.name} (memory slices {span(place.placement)} of GPU {gpu.uuid}) is covered by "
                f"{describe(instance)}, which claim {owner.ref} has made",
                hint="it becomes free when that claim is unprepared",
            )
    return _removable(device, strangers)


def _check_whole(device: WantedDevice, now: MigNow, owners: Owners) -> tuple[InTheWay, ...]:
    """What has to be removed before MIG mode can be turned off."""
    gpu = device.gpu
    if not now.enabled:
        return ()
    may_toggle = device.policy.mode is MigMode.DYNAMIC and toggles_without_reset(gpu) and not device.admin_access
    if not may_toggle:
        raise DeviceNotFound(
            f"device {device.name} (GPU {gpu.uuid}) is in MIG mode and cannot be used as a whole",
            hint="switch MIG mode off on that GPU, or ask for a MIG device",
        )
    for instance in now.instances:
        owner = owners.of(gpu.uuid, instance)
        if owner is not None:
            raise PlacementOccupied(
                f"device {device.name} (GPU {gpu.uuid}) is in MIG mode with {describe(instance)} of claim {owner.ref}",
                hint="it becomes free when that claim is unprepared",
            )
    return _removable(device, [InTheWay(gpu.uuid, instance) for instance in now.instances])


def _removable(device: WantedDevice, strangers: Sequence[InTheWay]) -> tuple[InTheWay, ...]:
    if not strangers or device.policy.adopt_foreign:
        return tuple(strangers)
    found = "; ".join(describe(each.instance) for each in strangers)
    raise PlacementOccupied(
        f"device {device.name} of GPU {device.gpu.uuid} is taken by what no claim has made: {found}",
        hint="it was made by hand or by another tool: remove it with nvidia-smi mig -dci and -dgi, "
        "or allow the driver to with adoptForeign in its MIG policy",
    )


def _check_there(device: WantedDevice, place: MigPlace, now: MigNow) -> None:
    instance = place.gpu_instance(now.instances)
    if instance is not None and any(map(place.is_compute, instance.compute_instances)):
        return
    there = "; ".join(describe(each) for each in now.instances) or "no GPU instance"
    state = f"MIG mode is on, with {there}" if now.enabled else "MIG mode is off"
    raise DeviceNotFound(
        f"device {device.name} is not on GPU {device.gpu.uuid} now ({state}), and this claim does not make it",
        hint="MIG devices of this GPU are made by its administrator (MIG policy static); "
        "make it again, or delete the claim (or its pod) so that it is allocated anew",
    )
