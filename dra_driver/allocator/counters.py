"""Shared counters: what devices in use have left of each counter set, and who holds the rest.

Rules (k8s.io/dynamic-resource-allocation/structured): a device fits when its pool's counter sets have enough left of
every counter that it consumes; what devices in use consume, on whatever node, is gone. Admin access neither needs nor
takes counters (kube-scheduler 1.37 charges them; kubernetes#140729 calls that a bug), nor capacity, which is the same
rule for shares. A device is charged once, however many claims share it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from dra_driver.allocator.model import ClaimKey, CounterUse, Device, InUse
from dra_driver.allocator.pools import Pool
from dra_driver.quantity import Quantity

_SetId = tuple[str, str, str]  # driver, pool, counter set


class CounterBalance:
    """What is left of every counter set of the cluster; :class:`CounterCharges` adds what a search takes."""

    def __init__(self, pools: Iterable[Pool], in_use: InUse) -> None:
        self._left: dict[_SetId, dict[str, Quantity]] = {}
        self._uses: dict[_SetId, list[tuple[ClaimKey, CounterUse]]] = defaultdict(list)
        for pool in pools:
            for name, counters in pool.counter_sets.items():
                self._left[pool.driver, pool.name, name] = dict(counters)
            for device in pool.devices if pool.counter_sets else ():
                if device.consumes and device.id in in_use:
                    self._charge(device, {holding.claim for holding in in_use[device.id]})

    def left(self, device: Device, use: CounterUse) -> Mapping[str, Quantity]:
        return self._left.get(_set_id(device, use), {})

    def holders(self, device: Device) -> tuple[ClaimKey, ...]:
        """The claims that have some of a counter of which too little is left for ``device``, sorted."""
        found: set[ClaimKey] = set()
        for wanted in device.consumes:
            left = self.left(device, wanted)
            short = [name for name, quantity in wanted.counters.items() if name not in left or quantity > left[name]]
            for holder, use in self._uses.get(_set_id(device, wanted), ()):
                if any(use.counters.get(name) for name in short):
                    found.add(holder)
        return tuple(sorted(found))

    def _charge(self, device: Device, holders: Iterable[ClaimKey]) -> None:
        for use in device.consumes:
            self._uses[_set_id(device, use)] += [(holder, use) for holder in holders]
            left = self._left.get(_set_id(device, use), {})
            for name, quantity in use.counters.items():
                if name in left:
                    left[name] -= quantity


class CounterCharges:
    """What one search has taken on top of a balance. Made anew for every search."""

    def __init__(self, balance: CounterBalance) -> None:
        self._balance = balance
        self._taken: dict[_SetId, dict[str, Quantity]] = defaultdict(dict)

    def fits(self, device: Device) -> bool:
        return all(self._enough(device, use) for use in device.consumes)

    def take(self, device: Device) -> None:
        for use in device.consumes:
            taken = self._taken[_set_id(device, use)]
            for name, quantity in use.counters.items():
                taken[name] = taken[name] + quantity if name in taken else quantity

    def give_back(self, device: Device) -> None:
        for use in device.consumes:
            taken = self._taken[_set_id(device, use)]
            for name, quantity in use.counters.items():
                taken[name] -= quantity

    def _enough(self, device: Device, use: CounterUse) -> bool:
        left = self._balance.left(device, use)
        taken = self._taken.get(_set_id(device, use), {})
        for name, wanted in use.counters.items():
            if name not in left:
                return False
            if wanted > (left[name] - taken[name] if name in taken else left[name]):
                return False
        return True


def _set_id(device: Device, use: CounterUse) -> _SetId:
    return (device.id.driver, device.id.pool, use.counter_set)
