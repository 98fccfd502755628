"""An offer and the claims: what the pool of one node should hold while devices are in use. Pure.

It never takes away, and never re-costs, a device that an allocated claim holds: the scheduler counts only what is
published, so it would hand out the same hardware twice (kubernetes#140802). Such a device stays as it was published,
tainted NoSchedule, until it is deallocated; and what shares hardware with it without a counter that says so waits for
that, too (``overlap``). A device that is shared otherwise than before is another device in that sense, so its shares
run out before new ones are offered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from controller.overlap import overlapping
from controller.problem import Problem, some_of
from dra_driver.devices.model import AllocatableDevice, CounterSet, DeviceKind, DeviceSet, Taint
from dra_driver.devices.policy import taint_key
from dra_driver.devices.shares import form_of
from dra_driver.slices.fallback import exclusive, reduce_to
from dra_driver.slices.features import ApiFeatures

UNAVAILABLE_TAINT = "unavailable"


@dataclass(frozen=True, slots=True)
class Retention:
    """An offer with the devices that claims hold. ``retained`` were kept although the inventory offers them no more or
    otherwise; ``lost`` are held by claims, but nothing is known of them; ``withheld`` would be offered if nobody held
    what they overlap with."""

    device_set: DeviceSet
    retained: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()


def retain(
    offered: DeviceSet,
    published: DeviceSet,
    in_use: Collection[str],
    driver: str,
    features: ApiFeatures,
    by_shares: Collection[str] = (),
) -> Retention:
    """``offered`` as ``features`` can express it, with the devices in ``in_use`` kept as they are in ``published``, and
    without those that share hardware with them unless counters tell the scheduler so.

    ``by_shares``: those of ``in_use`` that claims hold by shares only. A claim that was under way while a device became
    shareable, or ceased to be, holds it otherwise than it is offered; then nobody else may have it.
    """
    reduced = reduce_to(offered, features).device_set
    if not in_use:
        return Retention(reduced)
    devices = {device.name: device for device in reduced.devices}
    before = {device.name: device for device in published.devices}
    lost = sorted(name for name in in_use if name not in devices and name not in before)
    kept = {
        name: _unavailable(before[name], driver, features)
        for name in in_use
        if name in before
        and (
            name not in devices
            or not _is_the_same(devices[name], before[name])
            or devices[name].allow_multiple_allocations != (name in by_shares)
        )
    }
    ordered = _in_place(reduced.devices, published.devices, kept)
    together = DeviceSet(ordered, _counter_sets(reduced, published, kept.values()))
    withheld = overlapping(together, in_use, (offered, published))
    offerable = tuple(device for device in ordered if device.name not in withheld)
    return Retention(
        DeviceSet(offerable, together.counter_sets), tuple(sorted(kept)), tuple(lost), tuple(sorted(withheld))
    )


def retention_problem(retention: Retention) -> Problem | None:
    """Devices that claims hold and the node does not have, or not so, any more."""
    overlapping = some_of(retention.withheld)
    meanwhile = f"; not offered until then, because they overlap: {overlapping}" if overlapping else ""
    if retention.lost:
        return Problem(
            "AllocatedDeviceLost",
            f"allocated devices are neither in the inventory nor in a ResourceSlice: {some_of(retention.lost)}; "
            f"delete the pods that use them{meanwhile}",
        )
    if retention.retained:
        return Problem(
            "AllocatedDeviceUnavailable",
            f"the node no longer offers allocated devices as they are published: {some_of(retention.retained)}; "
            f"they stay, tainted, until their claims are deallocated{meanwhile}",
        )
    return None


def _unavailable(device: AllocatableDevice, driver: str, features: ApiFeatures) -> AllocatableDevice:
    if not features.partitionable:
        device = replace(device, consumes=())
    if not features.consumable:
        device = exclusive(device)
    if not features.taints:
        # Without taints the safe publication would withhold a tainted device; the claim that holds it guards it.
        return replace(device, taints=())
    key = taint_key(driver, UNAVAILABLE_TAINT)
    others = tuple(taint for taint in device.taints if taint.key != key)
    return replace(device, taints=(*others, Taint(key, "", "NoSchedule")))


def _is_the_same(fresh: AllocatableDevice, published: AllocatableDevice) -> bool:
    """Whether ``fresh`` may take the place of ``published`` while a claim holds it.

    A whole GPU may begin or cease to draw from counters: it is all of the same hardware either way, and what overlaps
    it is kept away in both.
    """
    if form_of(fresh) != form_of(published):
        return False
    if fresh.allow_multiple_allocations:
        return fresh.consumes == published.consumes and fresh.capacity == published.capacity
    if published.gpu_uuid and fresh.gpu_uuid != published.gpu_uuid:
        return False  # another GPU has its name now
    return fresh.kind is published.kind is DeviceKind.GPU or fresh.consumes == published.consumes


def _counter_sets(
    reduced: DeviceSet, published: DeviceSet, kept: Iterable[AllocatableDevice]
) -> tuple[CounterSet, ...]:
    """The counter sets of ``reduced``, with what ``kept`` draw and another GPU of that name does not have."""
    before = {found.name: found.counters for found in published.counter_sets}
    sets = {found.name: found for found in reduced.counter_sets}
    for device in kept:
        for use in device.consumes:
            now = sets[use.counter_set].counters if use.counter_set in sets else {}
            needed = before.get(use.counter_set, use.counters)
            missing = {name: needed[name] for name in use.counters if name in needed and name not in now}
            if not now:
                sets[use.counter_set] = CounterSet(use.counter_set, needed)
            elif missing:
                sets[use.counter_set] = CounterSet(use.counter_set, {**now, **missing})
    return tuple(sets.values())


def _in_place(
    offered: Iterable[AllocatableDevice], published: Iterable[AllocatableDevice], kept: dict[str, AllocatableDevice]
) -> tuple[AllocatableDevice, ...]:
    """``offered`` with ``kept`` in it, each after the device that it was published after, so that slices stay cut as
    they are; but never among the devices of another GPU."""
    result = [kept.get(device.name, device) for device in offered]
    place = 0
    for device in published:
        position = next((index for index, placed in enumerate(result) if placed.name == device.name), None)
        if position is not None:
            place = position + 1
        elif device.name in kept:
            result.insert(place, kept[device.name])
            place += 1
    boards: dict[int | str, list[AllocatableDevice]] = {}
    for device in result:
        boards.setdefault(device.board, []).append(device)
    return tuple(device for board in boards.values() for device in board)
