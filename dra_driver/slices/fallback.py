"""The safe publication: what may still be offered when the API server cannot hold all that describes the devices.

Safe means that no two devices can be allocated that overlap in hardware, and that no device is offered which a taint
was to keep pods from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dra_driver.devices.model import AllocatableDevice, Capacity, CounterSet, DeviceKind, DeviceSet
from dra_driver.devices.shares import SHARES, replicas_of
from dra_driver.quantity import Quantity
from dra_driver.slices.features import ApiFeatures


@dataclass(frozen=True, slots=True)
class Reduction:
    """``withheld`` names the devices that are not offered, in order, for the Event that says so."""

    device_set: DeviceSet
    withheld: tuple[str, ...]


def reduce_to(device_set: DeviceSet, features: ApiFeatures) -> Reduction:
    """The device set without what ``features`` cannot express.

    Without taints: no device that a NoSchedule or NoExecute taint guards. Without counters: of each GPU the whole,
    where it is offered, else the first of its partitions, in published order, that can exist together. Without
    consumable capacity: a device with replicas becomes as many exclusive ones; any other shareable device is withheld,
    since whoever asks for a part of it would get it whole.
    """
    devices: Iterable[AllocatableDevice] = device_set.devices
    if not features.taints:
        devices = _unguarded(devices)
    if not features.partitionable:
        devices = _apart(tuple(devices), device_set.counter_sets)
    if not features.consumable:
        devices = (device for device in devices if SHARES in device.capacity or not device.allow_multiple_allocations)
    kept = tuple(devices)
    names = {device.name for device in kept}
    if not features.consumable:
        kept = tuple(each for device in kept for each in _without_shares(device))
    return Reduction(
        DeviceSet(kept, device_set.counter_sets if features.partitionable else ()),
        tuple(device.name for device in device_set.devices if device.name not in names),
    )


def is_guarded(device: AllocatableDevice) -> bool:
    """Whether a taint keeps pods from the device."""
    return any(taint.keeps_pods_away for taint in device.taints)


def exclusive(device: AllocatableDevice) -> AllocatableDevice:
    """The device for one claim at a time."""
    if not device.allow_multiple_allocations:
        return device
    capacity = {name: Capacity(held.value) for name, held in device.capacity.items() if name != SHARES}
    return replace(device, capacity=capacity, allow_multiple_allocations=False)


def _unguarded(devices: Iterable[AllocatableDevice]) -> Iterator[AllocatableDevice]:
    return (replace(device, taints=()) for device in devices if not is_guarded(device))


def _apart(devices: Sequence[AllocatableDevice], counter_sets: Iterable[CounterSet]) -> Iterator[AllocatableDevice]:
    """Devices none of which needs a counter to be kept from another.

    A guarded partition is left out: a pod may tolerate its taint, and then it would have to fit beside the others.
    """
    whole = {device.gpu_uuid for device in devices if device.kind is DeviceKind.GPU}
    left = {counter_set.name: dict(counter_set.counters) for counter_set in counter_sets}
    for device in devices:
        if (
            not device.consumes
            or device.kind is DeviceKind.GPU
            or (device.gpu_uuid not in whole and not is_guarded(device) and _take(device, left))
        ):
            yield replace(device, consumes=())


def _take(device: AllocatableDevice, left: Mapping[str, dict[str, Quantity]]) -> bool:
    """Subtract what the device consumes from ``left``, if it is there."""
    wanted = [
        (left.get(use.counter_set, {}), name, quantity)
        for use in device.consumes
        for name, quantity in use.counters.items()
    ]
    if any(name not in counters or counters[name] < quantity for counters, name, quantity in wanted):
        return False
    for counters, name, quantity in wanted:
        counters[name] -= quantity
    return True


def _without_shares(device: AllocatableDevice) -> tuple[AllocatableDevice, ...]:
    return replicas_of(device) if device.allow_multiple_allocations else (device,)
