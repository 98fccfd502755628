"""Depth-first search with backtracking for devices of all claims of a pod on one node; the first solution wins.

Order as in kube-scheduler (k8s.io/dynamic-resource-allocation/structured): claims in pod order, requests in spec order,
alternatives as listed, pools, slices, devices; combinations inside one request. No scoring between solutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dra_driver.allocator.charges import Charges
from dra_driver.allocator.constraints import ClaimConstraints
from dra_driver.allocator.eligibility import Eligibility
from dra_driver.allocator.model import (
    MAX_DEVICES_PER_CLAIM,
    AllocationMode,
    Claim,
    Device,
    DeviceRequest,
    DeviceResult,
    Request,
)
from dra_driver.allocator.pools import Pool

# The scheduler stops after 10 s per node; counting steps keeps the answer the same on every machine.
STEP_LIMIT = 200_000


class SearchLimitError(Exception):
    """The search took more than :data:`STEP_LIMIT` steps."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Per claim: its results in request order, and the index of the alternative chosen for each request."""

    results: tuple[tuple[DeviceResult, ...], ...]
    choices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class _Slot:
    """One request in the flat order of the search."""

    claim: int
    request: Request


class Search:
    """One search over one node. ``pools`` are those that reach the node; make a new one for every attempt."""

    def __init__(self, eligibility: Eligibility, pools: Sequence[Pool], claims: Sequence[Claim]) -> None:
        self._eligibility = eligibility
        self._devices = [device for pool in pools if not pool.problem for device in pool.devices]
        self._broken_pool = any(pool.problem for pool in pools)
        self._slots = [_Slot(number, request) for number, claim in enumerate(claims) for request in claim.requests]
        self._constraints = [ClaimConstraints(claim) for claim in claims]
        self._results: list[list[DeviceResult]] = [[] for _ in claims]
        self._choices: list[list[int]] = [[] for _ in claims]
        self._charges = Charges(eligibility.counters, eligibility.shares)
        self._everything: dict[DeviceRequest, list[Device]] = {}
        self._steps = 0

    def run(self) -> Solution | None:
        """None when the claims do not fit. Raises what :class:`Eligibility` raises and :class:`SearchLimitError`."""
        self._gather_everything()
        if not self._next_request(0):
            return None
        return Solution(tuple(map(tuple, self._results)), tuple(map(tuple, self._choices)))

    def _gather_everything(self) -> None:
        """What each ``All`` request takes in; as in kube-scheduler, an error there comes before any search."""
        for request in (alternative for slot in self._slots for alternative in slot.request.alternatives):
            # One broken pool is fatal: nobody can tell what "all" would be.
            if request.mode is AllocationMode.ALL and not self._broken_pool:
                self._everything[request] = [
                    device for device in self._devices if self._eligibility.selects(request, device)
                ]

    def _next_request(self, position: int) -> bool:
        if position == len(self._slots):
            return True
        slot = self._slots[position]
        for choice, request in enumerate(slot.request.alternatives):
            self._choices[slot.claim].append(choice)
            if self._fill(position, request):
                return True
            self._choices[slot.claim].pop()
        return False

    def _fill(self, position: int, request: DeviceRequest) -> bool:
        if request.mode is AllocationMode.EXACT_COUNT:
            return self._pick(position, request, self._devices, 0, request.count)
        wanted = self._everything.get(request, ())
        return bool(wanted) and self._pick(position, request, wanted, 0, len(wanted))

    def _pick(self, position: int, request: DeviceRequest, devices: Sequence[Device], start: int, missing: int) -> bool:
        """Choose ``missing`` more devices from ``devices[start:]``, then go on with the next request."""
        if missing == 0:
            return self._next_request(position + 1)
        claim = self._slots[position].claim
        if len(self._results[claim]) + missing > MAX_DEVICES_PER_CLAIM:
            return False
        # To the last device, even where too few are left: an error on one of them ends the scheduling of the pod.
        for index in range(start, len(devices)):
            self._steps += 1
            if self._steps > STEP_LIMIT:
                raise SearchLimitError
            device = devices[index]
            if not self._take(claim, request, device):
                continue
            if self._pick(position, request, devices, index + 1, missing - 1):
                return True
            self._give_back(claim, request, device)
        return False

    def _take(self, claim: int, request: DeviceRequest, device: Device) -> bool:
        if not request.admin_access and self._charges.is_gone(device):
            return False
        amounts = self._eligibility.takes(request, device)
        if amounts is None or not (request.admin_access or self._charges.fits(device, amounts)):
            return False
        if not self._constraints[claim].add(request.name, device):
            return False
        if not request.admin_access:
            self._charges.take(device, amounts)
        self._results[claim].append(DeviceResult(request, device, amounts))
        return True

    def _give_back(self, claim: int, request: DeviceRequest, device: Device) -> None:
        self._results[claim].pop()
        self._constraints[claim].remove(request.name)
        if not request.admin_access:
            self._charges.give_back(device)
