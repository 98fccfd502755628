"""Which MIG devices of many nodes are free, by the counters that they publish: what the scheduler could give. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dra_driver.devices.model import DeviceSet
from dra_driver.devices.reordering import packing_group

Place = tuple[str, str]  # node and device
_CounterId = tuple[str, str]  # counter set and counter
_Use = Mapping[_CounterId, int]


@dataclass(frozen=True, slots=True)
class Kind:
    """What one node offers; all nodes offer the same. ``placements``: device names by profile, in published order."""

    uses: Mapping[str, _Use]
    profiles: Mapping[str, str]
    placements: Mapping[str, Sequence[str]]
    capacity: _Use

    @classmethod
    def of(cls, devices: DeviceSet) -> Kind:
        placements: dict[str, list[str]] = {}
        for device in devices.devices:
            placements.setdefault(packing_group(device), []).append(device.name)
        return cls(
            {
                device.name: {
                    (use.counter_set, name): quantity.nanos
                    for use in device.consumes
                    for name, quantity in use.counters.items()
                }
                for device in devices.devices
            },
            {device.name: packing_group(device) for device in devices.devices},
            placements,
            {
                (each.name, name): quantity.nanos
                for each in devices.counter_sets
                for name, quantity in each.counters.items()
            },
        )


@dataclass(slots=True)
class Room:
    """What is free on ``nodes``, all of ``kind``. ``spots``: how many devices of each profile could be given now."""

    kind: Kind
    nodes: Sequence[str]
    spots: Counter[str] = field(default_factory=Counter)
    _left: dict[str, dict[_CounterId, int]] = field(default_factory=dict)
    _spots: dict[str, Counter[str]] = field(default_factory=dict)
    _taken: set[Place] = field(default_factory=set)

    def __post_init__(self) -> None:
        empty = self._count(self.kind.capacity)
        for node in self.nodes:
            self._left[node], self._spots[node] = dict(self.kind.capacity), empty
            self.spots += empty

    def take(self, place: Place) -> None:
        """Nothing where it is taken already."""
        if place not in self._taken:
            self._taken.add(place)
            self._change(place, -1)

    def give_back(self, place: Place) -> None:
        if place in self._taken:
            self._taken.remove(place)
            self._change(place, 1)

    def first_fit(self, profile: str, nodes: Iterable[str]) -> Place | None:
        """The first free device in published order, on the first of ``nodes`` that has one."""
        for node in nodes:
            if self._spots[node][profile]:
                left = self._left[node]
                return next((node, name) for name in self.kind.placements[profile] if self._fits(name, left))
        return None

    def left(self, node: str) -> Mapping[tuple[str, str], int]:
        """What is left of each counter."""
        return self._left[node]

    def _change(self, place: Place, sign: int) -> None:
        node, device = place
        left = self._left[node]
        for counter, amount in self.kind.uses[device].items():
            left[counter] += sign * amount
        self.spots -= self._spots[node]
        self._spots[node] = self._count(left)
        self.spots += self._spots[node]

    def _count(self, left: _Use) -> Counter[str]:
        return Counter(
            profile for profile, names in self.kind.placements.items() for name in names if self._fits(name, left)
        )

    def _fits(self, device: str, left: _Use) -> bool:
        return all(left[counter] >= amount for counter, amount in self.kind.uses[device].items())


def compute_slices(profile: str) -> int:
    """4 for ``4g.40gb``."""
    return int(profile.partition("g")[0])
