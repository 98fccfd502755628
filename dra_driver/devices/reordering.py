"""The order of MIG devices on a node whose GPUs are partly in use: what ends least, on any of them, comes first. Pure.

A fixed order goes through the GPUs one by one, so it opens a large free part of the first GPU although a hole of the
right size is on the second. Where the placements of one profile on all GPUs are in one slice (``slices.cutting.Cut``),
the order of that slice says on which GPU the next claim goes. It is found as in ``packing``, from what is free now.
Only the order changes: not names, not counters, not what a slice holds. ``docs/dev/packing.md`` has what it gains.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge

from dra_driver.devices.mig_resources import COUNTERS, memory_slice
from dra_driver.devices.model import AllocatableDevice, DeviceKind
from dra_driver.devices.packing import Loss, cheapest_first
from dra_driver.quantity import Quantity

# Multiprocessors and memory slices: how much of a GPU a device is. Other than compute slices, devices publish both.
_Size = tuple[Quantity, int]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The same devices in two orders: that in which they are published, and that in which they had better be.

    They are equal unless another device of a group should be the next that a claim is given: how the rest stands is put
    right with it, and is of no account alone. That halves the writes, and the benchmark packs as well.
    """

    published: tuple[AllocatableDevice, ...]
    wanted: tuple[AllocatableDevice, ...]

    @property
    def is_settled(self) -> bool:
        return self.published == self.wanted


def arrange(devices: Sequence[AllocatableDevice], in_use: Collection[str], published: Sequence[str]) -> Arrangement:
    """``devices`` of one node by group, GPU by GPU as given within each; ``in_use`` and ``published`` are names, the
    latter in the order of the slices that exist. A group with devices that are not published is in the wanted order."""
    boards, fitting = _boards(devices, in_use), _fitting(devices, in_use)
    before: list[AllocatableDevice] = []
    after: list[AllocatableDevice] = []
    for group in by_group(devices):
        now = _as_published(group, published)
        free = _by_loss(group, boards) if group and packing_group(group[0]) else list(group)
        names = {device.name for device in free}
        if now is None or _next(free, fitting) != _next((device for device in now if device.name in names), fitting):
            order = [*free, *(device for device in now or group if device.name not in names)]
        else:
            order = list(now)
        before += now or order
        after += order
    return Arrangement(tuple(before), tuple(after))


def by_group(devices: Iterable[AllocatableDevice]) -> Iterator[tuple[AllocatableDevice, ...]]:
    """Whole GPUs and all that is not made on demand, then the placements of each profile, in order of appearance."""
    groups: dict[str, list[AllocatableDevice]] = {"": []}
    for device in devices:
        groups.setdefault(packing_group(device), []).append(device)
    return (tuple(group) for group in groups.values() if group)


def packing_group(device: AllocatableDevice) -> str:
    """Devices that stand in for each other, on whatever GPU: the profile, or nothing for what is no placement."""
    if device.kind is not DeviceKind.MIG or not device.consumes:
        return ""
    return str(device.attributes.get("profile", device.kind))


@dataclass(frozen=True, slots=True)
class _Board:
    """The memory slices of one GPU, as bit masks: those in use, and what could be placed where, largest size first."""

    number: int
    taken: int
    sizes: tuple[tuple[int, ...], ...]


def _boards(devices: Iterable[AllocatableDevice], in_use: Collection[str]) -> Mapping[str, _Board]:
    """By counter set, in order of appearance. What a taint keeps pods from is no place that could be lost."""
    taken: dict[str, int] = {}
    places: dict[str, dict[_Size, set[int]]] = {}
    for device in devices:
        for use in device.consumes:
            mask = _memory_slices(use.counters)
            held = mask if device.name in in_use else 0
            taken[use.counter_set] = taken.get(use.counter_set, 0) | held
            here = places.setdefault(use.counter_set, {})
            if not device.taints:
                size = (use.counters.get(COUNTERS["multiprocessors"], Quantity.of(0)), mask.bit_count())
                here.setdefault(size, set()).add(mask)
    sizes = sorted({size for here in places.values() for size in here}, reverse=True)
    return {
        name: _Board(number, taken[name], tuple(tuple(here.get(size, ())) for size in sizes))
        for number, (name, here) in enumerate(places.items())
    }


def _fitting(devices: Sequence[AllocatableDevice], in_use: Collection[str]) -> frozenset[str]:
    """Names of the devices for which every counter suffices, engines too. The whole GPU tells what there is of each."""
    there: dict[tuple[str, str], Quantity] = {}
    taken: dict[tuple[str, str], Quantity] = {}
    for device, counter, amount in _uses(devices):
        there[counter] = max(there.get(counter, amount), amount)
        if device.name in in_use:
            taken[counter] = taken.get(counter, Quantity.of(0)) + amount
    lacking = {
        device.name
        for device, counter, amount in _uses(devices)
        if counter in taken and taken[counter] + amount > there[counter]
    }
    return frozenset(device.name for device in devices if device.name not in lacking)


def _uses(devices: Iterable[AllocatableDevice]) -> Iterator[tuple[AllocatableDevice, tuple[str, str], Quantity]]:
    """Each device with each counter, by its set and name, that it draws from."""
    for device in devices:
        for use in device.consumes:
            for name, amount in use.counters.items():
                yield device, (use.counter_set, name), amount


def _next(devices: Iterable[AllocatableDevice], fitting: Collection[str]) -> AllocatableDevice | None:
    """The one that the next claim for them is given."""
    return next((device for device in devices if device.name in fitting), None)


def _by_loss(group: Iterable[AllocatableDevice], boards: Mapping[str, _Board]) -> list[AllocatableDevice]:
    """Those that are free: from all GPUs always the one that ends least, given those before it on its GPU."""
    at: dict[str, dict[int, AllocatableDevice]] = {}
    for device in group:
        use = device.consumes[0]
        if not device.taints:
            at.setdefault(use.counter_set, {})[_memory_slices(use.counters)] = device
    lines = (
        [
            (loss, boards[name].number, mask)
            for loss, mask in cheapest_first(here, boards[name].sizes, boards[name].taken)
        ]
        for name, here in at.items()
    )
    names = {board.number: name for name, board in boards.items()}
    # The lines are not sorted by loss: merge() takes the least of their heads each time, which is what is meant.
    heads: Iterator[tuple[Loss, int, int]] = merge(*lines)
    return [at[names[number]][mask] for _, number, mask in heads]


def _as_published(group: Sequence[AllocatableDevice], published: Sequence[str]) -> tuple[AllocatableDevice, ...] | None:
    """The group in published order; None when that does not name all of it."""
    fresh = {device.name: device for device in group}
    known = tuple(fresh[name] for name in dict.fromkeys(published) if name in fresh)
    return known if len(known) == len(fresh) else None


def _memory_slices(counters: Mapping[str, Quantity]) -> int:
    indices = (memory_slice(counter) for counter in counters)
    return sum(1 << index for index in indices if index is not None)
