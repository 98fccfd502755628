"""Allocates the claims of a pod on one node, or says why that cannot be: the allocator's front.

Dictionaries in (:meth:`Snapshot.from_objects`), frozen results out. What it does not do, it refuses with a reason
instead of allocating wrongly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dra_driver.allocator.consumption import CapacityRequestError
from dra_driver.allocator.counters import CounterBalance
from dra_driver.allocator.eligibility import Eligibility, SelectorFailedError
from dra_driver.allocator.model import AllocationResult, Claim, DeviceClass, DeviceId, Holding, InUse
from dra_driver.allocator.nodes import Node
from dra_driver.allocator.parse import holdings, parse_class
from dra_driver.allocator.pools import Pool, pools_from_slices
from dra_driver.allocator.reasons import Failure, diagnose, diagnose_alone, too_many_devices
from dra_driver.allocator.search import STEP_LIMIT, Search, SearchLimitError
from dra_driver.allocator.selectors import SelectorEngine
from dra_driver.allocator.shares import ShareBalance


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Devices, classes and use of the whole cluster at one moment."""

    pools: tuple[Pool, ...] = ()
    classes: Mapping[str, DeviceClass] = field(default_factory=dict, hash=False)
    in_use: InUse = field(default_factory=dict, hash=False)

    @classmethod
    def from_objects(
        cls,
        slices: Iterable[Mapping[str, Any]],
        classes: Iterable[Mapping[str, Any]],
        claims: Iterable[Mapping[str, Any]],
    ) -> Snapshot:
        """From ResourceSlices, DeviceClasses and all ResourceClaims (the allocated ones hold devices)."""
        parsed = {entry["metadata"]["name"]: parse_class(entry) for entry in classes}
        return cls(pools_from_slices(slices), parsed, devices_in_use(claims))

    def pools_on(self, node: Node) -> tuple[Pool, ...]:
        return tuple(pool for pool in (entry.on(node) for entry in self.pools) if pool is not None)


def devices_in_use(claims: Iterable[Mapping[str, Any]]) -> dict[DeviceId, tuple[Holding, ...]]:
    """Which claims have what of which device."""
    found: dict[DeviceId, list[Holding]] = defaultdict(list)
    for claim in claims:
        for device, holding in holdings(claim):
            found[device].append(holding)
    return {device: tuple(held) for device, held in found.items()}


class Allocator:
    """Allocates against one snapshot. Cheap to make; the engine carries the caches."""

    def __init__(self, engine: SelectorEngine, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        counters = CounterBalance(snapshot.pools, snapshot.in_use)
        shares = ShareBalance(snapshot.in_use)
        self._eligibility = Eligibility(engine, snapshot.classes, snapshot.in_use, counters, shares)

    def allocate(self, node: Node, claims: Sequence[Claim]) -> tuple[AllocationResult, ...] | Failure:
        """One result per claim, in order, or the failure of the first thing that does not fit."""
        hopeless = self._missing_class(claims) or too_many_devices(claims)
        if hopeless is not None:
            return hopeless
        pools = self._snapshot.pools_on(node)
        try:
            solution = Search(self._eligibility, pools, claims).run()
        except SelectorFailedError as error:
            return Failure(problem=str(error), request=error.request.name, fatal=True)
        except CapacityRequestError as error:
            return Failure(problem=str(error), fatal=True)
        except SearchLimitError:
            limit = Failure(problem=f"the search for devices took more than {STEP_LIMIT} steps; ask more selectively")
            return diagnose_alone(self._eligibility, pools, claims) or limit
        if solution is None:
            return diagnose(self._eligibility, pools, claims)
        return tuple(
            AllocationResult(claim, results, choices, self._snapshot.classes)
            for claim, results, choices in zip(claims, solution.results, solution.choices, strict=True)
        )

    def _missing_class(self, claims: Sequence[Claim]) -> Failure | None:
        for claim in claims:
            for request in (alternative for entry in claim.requests for alternative in entry.alternatives):
                if request.class_name not in self._snapshot.classes:
                    known = ", ".join(sorted(self._snapshot.classes)) or "none"
                    problem = f"there is no DeviceClass {request.class_name!r} (there are: {known})"
                    return Failure(problem=problem, claim=claim.key, request=request.name, fatal=True)
        return None
