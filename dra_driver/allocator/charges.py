"""What one search has given so far: whole devices, shares of devices, and the counters that both draw from.

Rules (k8s.io/dynamic-resource-allocation/structured): a whole device is given once. A device that allows multiple
allocations is given in shares, and its counters are charged with the first of them only. Admin access is no matter
here: it neither needs nor takes anything (``counters`` says where kube-scheduler differs).
"""

from __future__ import annotations

from dra_driver.allocator.consumption import Amounts
from dra_driver.allocator.counters import CounterBalance, CounterCharges
from dra_driver.allocator.model import Device, DeviceId
from dra_driver.allocator.shares import ShareBalance, ShareCharges


class Charges:
    """Calls of take and give_back pair like brackets."""

    def __init__(self, counters: CounterBalance, shares: ShareBalance) -> None:
        self._counters = CounterCharges(counters)
        self._shares = ShareCharges(shares)
        self._whole: set[DeviceId] = set()

    def is_gone(self, device: Device) -> bool:
        """Whether this search has given the whole device."""
        return device.id in self._whole

    def fits(self, device: Device, amounts: Amounts) -> bool:
        """Whether enough is left of the device's capacities and counters."""
        return self._shares.fits(device, amounts) and (self._are_counters_paid(device) or self._counters.fits(device))

    def take(self, device: Device, amounts: Amounts) -> None:
        if not self._are_counters_paid(device):
            self._counters.take(device)
        if device.allow_multiple_allocations:
            self._shares.take(device, amounts)
        else:
            self._whole.add(device.id)

    def give_back(self, device: Device) -> None:
        if device.allow_multiple_allocations:
            self._shares.give_back(device)
        else:
            self._whole.discard(device.id)
        if not self._are_counters_paid(device):
            self._counters.give_back(device)

    def _are_counters_paid(self, device: Device) -> bool:
        return device.allow_multiple_allocations and self._shares.is_shared(device)
