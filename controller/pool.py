"""What the pool of one node should hold: a pure function of inventory, policy, published slices and claims.

It never takes away, and never re-costs, a device that an allocated claim holds: the scheduler counts only what is
published, so it would hand out the same hardware twice (kubernetes#140802). Such a device stays as it was published,
tainted NoSchedule, until it is deallocated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from api.node_inventory import NodeInventoryStatus
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.model import AllocatableDevice, DeviceSet, Taint
from dra_driver.devices.policy import DevicePolicy
from dra_driver.errors import DriverError
from dra_driver.hardware.inventory import machine_from_status
from dra_driver.kube.interface import Obj
from dra_driver.slices.fallback import reduce_to
from dra_driver.slices.features import ApiFeatures

HARDWARE_READY = "HardwareReady"
UNAVAILABLE_TAINT = "unavailable"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something an administrator should know. ``reason`` is the Event's."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What a node's inventory offers. ``device_set`` is None when nothing can be said: what is published stays."""

    device_set: DeviceSet | None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """An offer with the devices that claims hold. ``retained`` were kept although the inventory offers them no more or
    otherwise; ``lost`` are held by claims, but nothing is known of them."""

    device_set: DeviceSet
    retained: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def offer(inventory: Obj, policy: DevicePolicy) -> Offer:
    """The devices of one NodeInventory.

    Hardware that the plugin could not read (condition HardwareReady is False) is an empty pool: consumers see it
    complete and empty. A plugin that has not said anything yet changes nothing.
    """
    name = inventory["metadata"]["name"]
    try:
        status = NodeInventoryStatus.model_validate(inventory.get("status") or {})
        if status.machine is not None:
            return Offer(allocatable_devices(machine_from_status(status.machine), policy, name))
    except ValidationError as error:
        return Offer(None, Problem("InvalidInventory", f"NodeInventory {name} cannot be read: {_first(error)}"))
    except ValueError as error:
        return Offer(None, Problem("InvalidInventory", f"NodeInventory {name} cannot be read: {error}"))
    except DriverError as error:
        return Offer(None, Problem(error.reason, f"NodeInventory {name}: {error}"))
    for condition in status.conditions:
        if condition.type == HARDWARE_READY and condition.status == "False":
            message = condition.message or condition.reason
            return Offer(DeviceSet(), Problem("HardwareNotReady", f"the pool is empty: {message}"))
    return Offer(None)


def retain(
    offered: DeviceSet, published: DeviceSet, in_use: Collection[str], driver: str, features: ApiFeatures
) -> Retention:
    """``offered`` as ``features`` can express it, with the devices in ``in_use`` kept as they are in ``published``."""
    reduced = reduce_to(offered, features).device_set
    if not in_use:
        return Retention(reduced)
    devices = {device.name: device for device in reduced.devices}
    before = {device.name: device for device in published.devices}
    lost = sorted(name for name in in_use if name not in devices and name not in before)
    kept = {
        name: _unavailable(before[name], driver, features)
        for name in in_use
        if name in before and (name not in devices or not _costs_the_same(devices[name], before[name]))
    }
    if not kept:
        return Retention(reduced, lost=tuple(lost))
    ordered = _in_place(reduced.devices, published.devices, kept)
    needed = {consumption.counter_set for device in kept.values() for consumption in device.consumes}
    present = {counter_set.name for counter_set in reduced.counter_sets}
    extra = tuple(found for found in published.counter_sets if found.name in needed - present)
    return Retention(DeviceSet(ordered, reduced.counter_sets + extra), tuple(sorted(kept)), tuple(lost))


def is_degraded(offered: DeviceSet, features: ApiFeatures) -> Problem | None:
    """What the API server makes us leave out of the publication, if anything."""
    reduction = reduce_to(offered, features)
    if reduction.device_set == offered:
        return None
    message = (
        "the API server drops fields of ResourceSlices (feature gates are off); devices are published without them"
    )
    if reduction.withheld:
        message += f", and withheld where that would be unsafe: {_some(reduction.withheld)}"
    return Problem("ApiServerDropsFields", message)


def retention_problem(retention: Retention) -> Problem | None:
    """Devices that claims hold and the node does not have, or not so, any more."""
    if retention.lost:
        return Problem(
            "AllocatedDeviceLost",
            f"allocated devices are neither in the inventory nor in a ResourceSlice: {_some(retention.lost)}; "
            f"delete the pods that use them",
        )
    if retention.retained:
        return Problem(
            "AllocatedDeviceUnavailable",
            f"the node no longer offers allocated devices as they are published: {_some(retention.retained)}; "
            f"they stay, tainted, until their claims are deallocated",
        )
    return None


def _unavailable(device: AllocatableDevice, driver: str, features: ApiFeatures) -> AllocatableDevice:
    if not features.taints:
        # Without taints the safe publication would withhold a tainted device; the claim that holds it guards it.
        return replace(device, taints=())
    key = f"{driver}/{UNAVAILABLE_TAINT}"
    others = tuple(taint for taint in device.taints if taint.key != key)
    return replace(device, taints=(*others, Taint(key, "", "NoSchedule")))


def _costs_the_same(fresh: AllocatableDevice, published: AllocatableDevice) -> bool:
    shareable = fresh.allow_multiple_allocations or published.allow_multiple_allocations
    return (
        fresh.consumes == published.consumes
        and fresh.allow_multiple_allocations == published.allow_multiple_allocations
        and not (shareable and fresh.capacity != published.capacity)
    )


def _in_place(
    offered: Iterable[AllocatableDevice], published: Iterable[AllocatableDevice], kept: dict[str, AllocatableDevice]
) -> tuple[AllocatableDevice, ...]:
    """``offered`` with ``kept`` in it, each after the device that it was published after, so that slices stay cut as
    they are."""
    result = [kept.get(device.name, device) for device in offered]
    place = 0
    for device in published:
        position = next((index for index, placed in enumerate(result) if placed.name == device.name), None)
        if position is not None:
            place = position + 1
        elif device.name in kept:
            result.insert(place, kept[device.name])
            place += 1
    return tuple(result)


def _some(names: Collection[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")


def _first(error: ValidationError) -> str:
    details: Any = error.errors()[0]
    path = ".".join(str(part) for part in ("status", *details["loc"]))
    return f"{path}: {details['msg']}"
