"""The order of devices as rules, so that a difference in order is compared and not explained away.

Each rule is computed from what the slices themselves say of their devices (names, bus ids, capacities, counters), never
from who wrote them, and without the code that it judges. What follows none of the rules is called random only when
another recording puts the same GPUs in another order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from dra_driver.quantity import Quantity

Device = Mapping[str, Any]

RANDOM = "random, another one after each restart"
NO_RULE = "by no rule that is known"

_BUS = "resource.kubernetes.io/pciBusID"
_MEDIA = ("decoders", "encoders", "jpegEngines", "ofaEngines")
_MEMORY_SLICE = re.compile(r"memory-slice-([0-9]+)")


@dataclass(frozen=True, slots=True)
class Order:
    """``words`` are those of the table; ``sort`` puts any devices that the rule ``speaks_of`` in its order."""

    words: str
    speaks_of: Callable[[Sequence[Device]], bool]
    sort: Callable[[Sequence[Device]], list[Device]]


def words_of(devices: Sequence[Device], other_recordings: Iterable[Sequence[Device]] = ()) -> str:
    """The rule that these devices follow. ``other_recordings`` are of the same driver, with the same settings."""
    for order in ORDERS:
        if order.speaks_of(devices) and names(order.sort(devices)) == names(devices):
            return order.words
    return RANDOM if any(_contradict(devices, other) for other in other_recordings) else NO_RULE


def names(devices: Iterable[Device]) -> list[str]:
    return [device["name"] for device in devices]


def _contradict(one: Sequence[Device], other: Sequence[Device]) -> bool:
    """Whether the GPUs that both have stand in different orders."""
    first, second = (
        list(dict.fromkeys(device["name"].partition("-mig-")[0] for device in each)) for each in (one, other)
    )
    both = set(first) & set(second)
    return [gpu for gpu in first if gpu in both] != [gpu for gpu in second if gpu in both]


def _is_mig(device: Device) -> bool:
    return bool(device["attributes"]["type"]["string"] == "mig")


def _any_mig(devices: Sequence[Device]) -> bool:
    return any(map(_is_mig, devices))


def _any_counters(devices: Sequence[Device]) -> bool:
    return any("consumesCounters" in device for device in devices)


def _bus(device: Device) -> str:
    return str(device["attributes"][_BUS]["string"])


def _number(device: Device, capacity: str) -> int:
    return Quantity.parse(device["capacity"][capacity]["value"]).nanos


def _place(device: Device) -> frozenset[int]:
    """The memory slices that a MIG device draws from its counter set."""
    drawn = [name for consumed in device["consumesCounters"] for name in consumed["counters"]]
    return frozenset(int(match[1]) for name in drawn if (match := _MEMORY_SLICE.fullmatch(name)))


def _compute_slices(device: Device) -> int:
    return int(device["attributes"]["profile"]["string"].partition("g")[0])


def _size(device: Device) -> tuple[int, int]:
    return _compute_slices(device), len(_place(device))


def _profile_rank(device: Device) -> tuple[int, ...]:
    """From the smallest profile to the largest: compute slices, memory slices, then media engines, which are scarce."""
    return *_size(device), sum(_number(device, engine) for engine in _MEDIA)


def _profile(device: Device) -> str:
    return str(device["attributes"]["profile"]["string"])


def _by_bus(devices: Sequence[Device]) -> list[Device]:
    return sorted(devices, key=_bus)


def _by_name(devices: Sequence[Device]) -> list[Device]:
    return sorted(devices, key=lambda device: str(device["name"]))


def _smallest_first(devices: Sequence[Device]) -> list[Device]:
    def key(device: Device) -> tuple[str, int, int, str]:
        multiprocessors = _number(device, "multiprocessors") if _is_mig(device) else 0
        return _bus(device), _number(device, "memory"), multiprocessors, device["name"]

    return sorted(devices, key=key)


def _least_destroyed_first(devices: Sequence[Device]) -> list[Device]:
    """As docs/dev/packing.md has it, word by word."""
    ordered = []
    for _, of_gpu in groupby(_by_bus(devices), key=_bus):
        gpu = list(of_gpu)
        mig = [device for device in gpu if _is_mig(device)]
        ordered += [device for device in gpu if not _is_mig(device)]
        for _, of_profile in groupby(sorted(mig, key=lambda each: (_profile_rank(each), _profile(each))), key=_profile):
            ordered += _in_line(list(of_profile), mig)
    return ordered


def _in_line(profile: list[Device], of_gpu: Sequence[Device]) -> list[Device]:
    """One profile's placements: next is always what ends the fewest free places, those of the largest size first; of
    equals, the one at the highest memory slice."""
    sizes = sorted(set(map(_size, of_gpu)), reverse=True)
    free = {(_size(device), _place(device)) for device in of_gpu}
    line: list[Device] = []

    def ends(device: Device) -> tuple[int, ...]:
        return tuple(sum(1 for size, place in free if size == each and place & _place(device)) for each in sizes)

    while profile:
        following = min(profile, key=lambda device: (ends(device), -max(_place(device))))
        line.append(following)
        profile.remove(following)
        free = {(size, place) for size, place in free if not place & _place(following)}
    return line


ORDERS = (
    Order(
        "the whole GPU, then what destroys least of the larger placements",
        lambda devices: _any_mig(devices) and _any_counters(devices),
        _least_destroyed_first,
    ),
    Order(
        "by PCI bus id, on each GPU the smallest MIG device first",
        lambda devices: _any_mig(devices) and not _any_counters(devices),
        _smallest_first,
    ),
    Order("by PCI bus id", lambda devices: not _any_mig(devices), _by_bus),
    Order("by name", lambda _devices: True, _by_name),
)
