"""Which MIG steps a claim needs, and whether the hardware is as the claim needs it. Pure.

The hardware has been asked under the GPU's lock just before: what the API says is free may be taken by an instance that
somebody made by hand, and NVML would only answer "insufficient resources", whatever is in the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from api.mig_policy import MigMode
from dra_driver.devices.policy import toggles_without_reset
from dra_driver.errors import DeviceNotFound
from dra_driver.hardware.model import GpuInstance
from dra_driver.hardware.nvml import MigModePending, PlacementOccupied
from kubelet_plugin.hardware.mig import MigNow, describe, span
from kubelet_plugin.kinds.in_the_way import InTheWay, removable
from kubelet_plugin.kinds.mig.device import MigDevice, mig_of
from kubelet_plugin.kinds.mig.owners import Owners
from kubelet_plugin.kinds.mig.steps import Afterwards, MakeComputeInstance, MakeGpuInstance, MigModeOn, MigStep
from kubelet_plugin.prepare.kind import ClaimDevice, MakerPlan

_RESET_HINT = (
    "drain the node, turn MIG mode on and reset the GPU: nvidia-smi -mig 1 and nvidia-smi --gpu-reset, each with -i "
)


def plan_mig(devices: Sequence[ClaimDevice], now: Mapping[str, MigNow], owners: Owners) -> MakerPlan:
    """The plan for ``devices``; ``now`` by GPU UUID. ``owners`` without the claim itself: nothing of it is left.

    Raises DeviceNotFound for an instance that has to be there and is not, PlacementOccupied for one that is in the way,
    and MigModePending where MIG mode is not as needed and cannot be changed.
    """
    removals: dict[tuple[str, int], InTheWay] = {}
    for device in devices:
        name, mig = device.allocated.device, mig_of(device.place)
        if is_made(mig, admin_access=device.allocated.admin_access):
            in_the_way = _check_place(name, mig, now[mig.gpu_uuid], owners)
            removals.update({(each.gpu_uuid, each.instance.id): each for each in in_the_way})
        else:
            _check_there(name, mig, now[mig.gpu_uuid])
    return MakerPlan(making_steps(devices), tuple(removals.values()))


def is_made(device: MigDevice, *, admin_access: bool) -> bool:
    """Whether the claim makes the instance; otherwise it has to be there."""
    return device.policy.mode is MigMode.DYNAMIC and not admin_access


def making_steps(devices: Sequence[ClaimDevice]) -> tuple[MigStep, ...]:
    """What brings the claim's own MIG devices about."""
    found = ((mig_of(device.place), device.allocated.admin_access) for device in devices)
    return steps_of(mig for mig, admin in found if is_made(mig, admin_access=admin))


def steps_of(made: Iterable[MigDevice]) -> tuple[MigStep, ...]:
    """Each thing once, MIG mode of a GPU before its first instance."""
    return tuple(dict.fromkeys(_steps_of(made)))


def _steps_of(made: Iterable[MigDevice]) -> Iterator[MigStep]:
    for device in made:
        if toggles_without_reset(device.gpu):
            yield MigModeOn(device.gpu.uuid, Afterwards.KEPT if device.policy.keep_mode else Afterwards.OFF)
        yield MakeGpuInstance(device.at)
        yield MakeComputeInstance(device.at)


def _check_place(name: str, device: MigDevice, now: MigNow, owners: Owners) -> tuple[InTheWay, ...]:
    """What has to be removed for the device."""
    gpu, place = device.gpu, device.at
    if not now.enabled:
        if not toggles_without_reset(gpu):
            raise MigModePending(
                f"device {name} needs MIG mode, which is off on GPU {gpu.uuid} ({gpu.product_name}) and is "
                "turned on only by a reset of the GPU",
                hint=f"{_RESET_HINT}{gpu.minor}",
            )
        return ()
    strangers: list[GpuInstance] = []
    for instance in now.instances:
        if not instance.placement.overlaps(place.placement):
            continue
        owner = owners.of(gpu.uuid, instance)
        if owner is None:
            strangers.append(instance)
        elif place.compute_start is None or not place.is_of(instance):
            raise PlacementOccupied(
                f"device {name} (memory slices {span(place.placement)} of GPU {gpu.uuid}) is covered by "
                f"{describe(instance)}, which claim {owner.holder} has made",
                hint="it becomes free when that claim is unprepared",
            )
    return removable(name, gpu.uuid, strangers, device.policy)


def _check_there(name: str, device: MigDevice, now: MigNow) -> None:
    place = device.at
    instance = place.gpu_instance(now.instances)
    if instance is not None and any(map(place.is_compute, instance.compute_instances)):
        return
    there = "; ".join(describe(each) for each in now.instances) or "no GPU instance"
    state = f"MIG mode is on, with {there}" if now.enabled else "MIG mode is off"
    raise DeviceNotFound(
        f"device {name} is not on GPU {device.gpu_uuid} now ({state}), and this claim does not make it",
        hint="MIG devices of this GPU are made by its administrator (MIG policy static); "
        "make it again, or delete the claim (or its pod) so that it is allocated anew",
    )
