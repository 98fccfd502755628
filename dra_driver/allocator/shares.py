"""Shares of devices that allow multiple allocations: what claims consume of each, and who they are (KEP-5075).

Rules (k8s.io/dynamic-resource-allocation/structured): of every capacity, what all shares of a device consume together
may not exceed its value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from dra_driver.allocator.consumption import Amounts
from dra_driver.allocator.model import ClaimKey, Device, DeviceId, InUse
from dra_driver.quantity import Quantity

_NOTHING = Quantity.of(0)


class ShareBalance:
    """What allocated claims have; :class:`ShareCharges` adds what a search takes."""

    def __init__(self, in_use: InUse) -> None:
        self._consumed: dict[DeviceId, dict[str, Quantity]] = {}
        self._holders: dict[DeviceId, list[ClaimKey]] = defaultdict(list)
        for device, holdings in in_use.items():
            for holding in holdings:
                if holding.consumed is not None:
                    self._holders[device].append(holding.claim)
                    _add(self._consumed.setdefault(device, {}), holding.consumed)

    def is_shared(self, device: Device) -> bool:
        return device.id in self._consumed

    def consumed(self, device: Device, name: str) -> Quantity:
        return self._consumed.get(device.id, {}).get(name, _NOTHING)

    def holders(self, device: Device) -> tuple[ClaimKey, ...]:
        """The claims that have shares of ``device``, sorted."""
        return tuple(sorted(set(self._holders.get(device.id, ()))))

    def short(self, device: Device, amounts: Amounts) -> str:
        """The first capacity of which too little is left for ``amounts``, and how much that is; empty when it fits."""
        for name, wanted in amounts.items():
            left = device.offers[name].value - self.consumed(device, name)
            if wanted > left:
                return f"{name} {max(left, _NOTHING)} of {device.offers[name].value} left, asked {wanted}"
        return ""


class ShareCharges:
    """What one search has taken on top of a balance. Made anew for every search."""

    def __init__(self, balance: ShareBalance) -> None:
        self._balance = balance
        self._taken: dict[DeviceId, list[Amounts]] = defaultdict(list)

    def is_shared(self, device: Device) -> bool:
        return bool(self._taken.get(device.id)) or self._balance.is_shared(device)

    def fits(self, device: Device, amounts: Amounts) -> bool:
        """``amounts`` are within what the device has of each capacity."""
        if not self.is_shared(device):
            return True
        taken = self._taken.get(device.id, ())
        return all(
            wanted + self._balance.consumed(device, name) + _sum(share[name] for share in taken)
            <= device.offers[name].value
            for name, wanted in amounts.items()
        )

    def take(self, device: Device, amounts: Amounts) -> None:
        self._taken[device.id].append(amounts)

    def give_back(self, device: Device) -> None:
        """The share of ``device`` that was taken last."""
        self._taken[device.id].pop()


def _add(total: dict[str, Quantity], amounts: Amounts) -> None:
    for name, amount in amounts.items():
        total[name] = total[name] + amount if name in total else amount


def _sum(amounts: Iterable[Quantity]) -> Quantity:
    return sum(amounts, start=_NOTHING)
