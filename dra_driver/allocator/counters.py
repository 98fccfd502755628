"""Shared counters (KEP-4815): what is left of each counter set of a pool, and whether a device fits into it.

As in k8s.io/dynamic-resource-allocation/structured: what allocated devices consume is taken off, wherever in the pool
they are published; a device fits when each counter that it draws from has at least as much left. Devices given for
admin access draw nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dra_driver.allocator.model import ClaimKey, Device, DeviceId
from dra_driver.allocator.pools import Pool
from dra_driver.quantity import Quantity

_SetKey = tuple[str, str, str]  # driver, pool, counter set


@dataclass(frozen=True, slots=True)
class _Use:
    claim: ClaimKey
    counters: Mapping[str, Quantity]


class Counters:
    """What is left, as devices are taken and given back. A :meth:`copy` goes its own way."""

    def __init__(self, left: Mapping[_SetKey, Mapping[str, Quantity]], uses: Mapping[_SetKey, list[_Use]]) -> None:
        self._left = {key: dict(counters) for key, counters in left.items()}
        self._uses = uses

    @classmethod
    def of(cls, pools: Iterable[Pool], in_use: Mapping[DeviceId, ClaimKey]) -> Counters:
        """What claims leave of the counters of whole pools (not only of the part that one node sees)."""
        left: dict[_SetKey, Mapping[str, Quantity]] = {}
        uses: dict[_SetKey, list[_Use]] = {}
        users: list[Device] = []
        for pool in pools:
            for name, counters in pool.counters.items():
                left[pool.driver, pool.name, name] = counters
            users += [device for device in pool.devices if device.consumes and device.id in in_use]
        found = cls(left, uses)
        for device in users:
            found.take(device)
            for name, counters in device.consumes.items():
                uses.setdefault(_key(device, name), []).append(_Use(in_use[device.id], counters))
        return found

    def copy(self) -> Counters:
        return Counters(self._left, self._uses)

    def fits(self, device: Device) -> bool:
        return not any(self._short(device, name) for name in device.consumes)

    def take(self, device: Device) -> None:
        """Also what does not fit: claims hold what they hold."""
        for name, wanted in device.consumes.items():
            left = self._left.setdefault(_key(device, name), {})
            for counter, amount in wanted.items():
                left[counter] = left.get(counter, Quantity.of(0)) - amount

    def give_back(self, device: Device) -> None:
        for name, wanted in device.consumes.items():
            left = self._left[_key(device, name)]
            for counter, amount in wanted.items():
                left[counter] += amount

    def holders(self, device: Device) -> tuple[ClaimKey, ...]:
        """Claims that draw from the counters of which too little is left for ``device``."""
        found: dict[ClaimKey, None] = {}
        for name in device.consumes:
            short = self._short(device, name)
            for use in self._uses.get(_key(device, name), ()):
                if any(use.counters.get(counter) for counter in short):
                    found[use.claim] = None
        return tuple(found)

    def _short(self, device: Device, name: str) -> list[str]:
        left = self._left.get(_key(device, name), {})
        wanted = device.consumes[name]
        return [counter for counter, amount in wanted.items() if left.get(counter, Quantity.of(0)) < amount]


def _key(device: Device, counter_set: str) -> _SetKey:
    return device.id.driver, device.id.pool, counter_set
