"""The safe publication: what may still be offered when the API server cannot hold all that describes the devices.

Safe means that no two devices can be allocated that overlap in hardware, and that no device is offered which a taint
was to keep pods from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dra_driver.devices.model import AllocatableDevice, Capacity, DeviceKind, DeviceSet
from dra_driver.slices.features import ApiFeatures


@dataclass(frozen=True, slots=True)
class Reduction:
    """``withheld`` names the devices that are not offered, in order, for the Event that says so."""

    device_set: DeviceSet
    withheld: tuple[str, ...]


def reduce_to(device_set: DeviceSet, features: ApiFeatures) -> Reduction:
    """The device set without what ``features`` cannot express.

    Without counters: whole GPUs only. Without taints: no device that a NoSchedule or NoExecute taint guards. Without
    consumable capacity: shareable devices become exclusive ones.
    """
    kept = tuple(_kept(device_set, features))
    names = {device.name for device in kept}
    return Reduction(
        DeviceSet(kept, device_set.counter_sets if features.partitionable else ()),
        tuple(device.name for device in device_set.devices if device.name not in names),
    )


def _kept(device_set: DeviceSet, features: ApiFeatures) -> Iterator[AllocatableDevice]:
    for device in device_set.devices:
        if device.consumes and not features.partitionable:
            if device.kind is not DeviceKind.GPU:
                continue
            device = replace(device, consumes=())
        if device.taints and not features.taints:
            if any(taint.effect in ("NoSchedule", "NoExecute") for taint in device.taints):
                continue
            device = replace(device, taints=())
        if device.allow_multiple_allocations and not features.consumable:
            capacity = {name: Capacity(held.value) for name, held in device.capacity.items()}
            device = replace(device, capacity=capacity, allow_multiple_allocations=False)
        yield device
