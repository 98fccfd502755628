"""What may not be offered beside the devices that claims hold. Pure.

The scheduler knows that two devices share hardware only from counters that both draw from. A device that a claim holds
may draw from none: it was published under another policy, by a server without counters, as a MIG device that an
administrator made, or by NVIDIA's driver. Then everything that shares hardware with it has to stay away until it is
free, and what it shares is found from what is known of it: counters, capacities, name. Replicas, which stand for one
device, are offered beside each other; but not beside one in use that is left from another number or way of sharing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from dra_driver.devices.mig_resources import counters_of_capacities, is_memory_slice
from dra_driver.devices.model import AllocatableDevice, DeviceKind, DeviceSet
from dra_driver.devices.naming import MigName, minor_of, read_name
from dra_driver.devices.shares import SharingForm, form_of
from dra_driver.quantity import Quantity

# Quantities by counter name; None is all of the GPU, or too little known to say less.
_Demand = Mapping[str, Quantity] | None

_NONE, _ONE = Quantity.of(0), Quantity.of(1)


@dataclass(frozen=True, slots=True)
class _Held:
    """A device in use. ``counter_sets``: those that it draws from, so that the scheduler knows what it takes. ``form``:
    how it is shared; None where nothing is known of it."""

    name: str
    minor: int | None
    gpu_uuid: str
    demand: _Demand
    counter_sets: frozenset[str]
    form: SharingForm | None


def overlapping(pool: DeviceSet, in_use: Collection[str], known: Iterable[DeviceSet]) -> frozenset[str]:
    """Names of those devices of ``pool`` that must not be offered, because the devices ``in_use`` leave too little
    hardware for them and no counter says so.

    ``in_use`` may name devices that are not in ``pool`` (lost ones). ``known``: other descriptions of devices and
    counter sets, best first, in which a device may say more about what it takes.
    """
    described = [pool, *known]
    devices = {device.name: device for device in pool.devices}
    held = [_held(name, devices.get(name), described) for name in sorted(in_use)]
    return frozenset(
        device.name for device in pool.devices if device.name not in in_use and _has_too_little(device, held, described)
    )


def _held(name: str, device: AllocatableDevice | None, described: Iterable[DeviceSet]) -> _Held:
    return _Held(
        name,
        minor_of(name),
        device.gpu_uuid if device else "",
        _demand(name, described),
        frozenset(use.counter_set for use in device.consumes) if device else frozenset(),
        form_of(device) if device else None,
    )


def _has_too_little(device: AllocatableDevice, held: Iterable[_Held], described: Collection[DeviceSet]) -> bool:
    minor, own_sets = minor_of(device.name), {use.counter_set for use in device.consumes}
    on_its_gpu = [each for each in held if _same_gpu(device.gpu_uuid, minor, each)]
    replicas = [each for each in on_its_gpu if _replicas(device.name, each.name)]
    if any(each.form != form_of(device) for each in replicas):
        return True
    beside = [
        each
        for each in on_its_gpu
        if each not in replicas and not own_sets & each.counter_sets and not _siblings(device.name, each.name)
    ]
    if not beside:
        return False
    wanted = _demand(device.name, described)
    if wanted is None or any(each.demand is None for each in beside):
        return True
    limits = _limits(own_sets, described)
    return any(
        limit is not None and quantity + _total(beside, counter) > limit
        for counter, quantity in wanted.items()
        for limit in (limits.get(counter, _ONE if is_memory_slice(counter) else None),)
    )


def _total(held: Iterable[_Held], counter: str) -> Quantity:
    return sum(((each.demand or {}).get(counter, _NONE) for each in held), _NONE)


def _limits(counter_sets: Collection[str], described: Iterable[DeviceSet]) -> Mapping[str, Quantity]:
    """How much there is of each counter, as far as ``counter_sets`` say."""
    for devices in described:
        for found in devices.counter_sets:
            if found.name in counter_sets:
                return found.counters
    return {}


def _demand(name: str, described: Iterable[DeviceSet]) -> _Demand:
    """What a device takes, by the first description that tells."""
    for devices in described:
        for device in devices.devices:
            if device.name != name:
                continue
            if device.kind is DeviceKind.GPU:
                return None
            drawn = {counter: quantity for use in device.consumes for counter, quantity in use.counters.items()}
            counters = drawn or counters_of_capacities(device.capacity)
            if any(map(is_memory_slice, counters)):
                return counters
    return None


def _same_gpu(gpu_uuid: str, minor: int | None, held: _Held) -> bool:
    """By UUID or by minor number: either may have changed since the claim was allocated."""
    return (gpu_uuid != "" and gpu_uuid == held.gpu_uuid) or (minor is not None and minor == held.minor)


def _replicas(one: str, other: str) -> bool:
    """Whether two devices stand for the same one."""
    left, right = read_name(one), read_name(other)
    if left is None or right is None or left.replica is None or right.replica is None:
        return False
    return replace(left, replica=None) == replace(right, replica=None)


def _siblings(one: str, other: str) -> bool:
    """Whether two devices are different parts of one GPU instance, which share its memory and engines on purpose."""
    left, right = read_name(one), read_name(other)
    if not isinstance(left, MigName) or not isinstance(right, MigName):
        return False
    slices, others = left.compute_slices(), right.compute_slices()
    return (
        (left.minor, left.profile_id, left.start) == (right.minor, right.profile_id, right.start)
        and slices is not None
        and others is not None
        and not set(slices) & set(others)
    )
