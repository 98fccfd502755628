"""Where MIG devices would go, what keeps them from it, and which claims would have to leave. Pure.

The allocator decides, on the slices as they are published and with the claims as they are: one device after the other
as if each were a claim of its own, on the first node (by name) that has room. That is what kube-scheduler does on one
node; between nodes it may choose otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice

from dra_driver.allocator.allocate import Allocator, Snapshot, devices_in_use
from dra_driver.allocator.eligibility import RejectionKind
from dra_driver.allocator.model import Claim, ClaimKey, Device, DeviceClass, DeviceId, DeviceRequest, Holding, Request
from dra_driver.allocator.nodes import Node
from dra_driver.allocator.reasons import Failure
from dra_driver.cli.mig.reading import ClusterView
from dra_driver.slices.decode import pool_of

_CLASS = "planned"
_PLANNED = ClaimKey("", "planned")
_MOST_MOVES = 3
_MOST_TRIES = 2000


@dataclass(frozen=True, slots=True)
class Placed:
    """One device that would be given."""

    profile: str
    node: str
    device: str


@dataclass(frozen=True, slots=True)
class Blockers:
    """Why ``count`` more devices of a profile find no place: ``places`` published, and what each is kept by.

    ``holders``: claims on the same memory slices or engines; ``given``: devices given, by this plan too.
    """

    profile: str
    count: int
    places: int
    taken: int = 0
    holders: tuple[ClaimKey, ...] = ()
    tainted: Mapping[str, int] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class MigPlan:
    """``move``: the smallest set of claims that was found whose leaving makes everything fit; empty when nothing has
    to leave, or when no set of up to three claims helps. ``better_order``: everything fits if created in this one."""

    placed: tuple[Placed, ...]
    missing: tuple[Blockers, ...] = ()
    move: tuple[ClaimKey, ...] = ()
    better_order: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return not self.missing


def plan(view: ClusterView, wanted: Mapping[str, int]) -> MigPlan:
    """The plan for ``wanted``, in its order."""
    return _Planner(view).plan(wanted)


class _Program:
    """One profile as a selector: what a person would write in CEL as attribute ``profile`` being equal to it."""

    def __init__(self, expression: str) -> None:
        self.expression = expression

    def evaluate(self, device: Device) -> bool:
        return device.attribute(f"{device.id.driver}/profile") == self.expression


class _ProfileEngine:
    """A ``SelectorEngine`` whose expressions are names of profiles."""

    def compile(self, expression: str) -> _Program:
        return _Program(expression)


_InUse = dict[DeviceId, tuple[Holding, ...]]


class _Planner:
    def __init__(self, view: ClusterView) -> None:
        self._in_use: _InUse = devices_in_use(view.claims)
        self._snapshots: dict[str, Snapshot] = {}
        classes = {_CLASS: DeviceClass(_CLASS)}
        for node in view.nodes:
            own = [entry for entry in view.slices if pool_of(entry) == node.name]
            pools = Snapshot.from_objects(own, (), ()).pools
            self._snapshots[node.name] = Snapshot(pools, classes)

    def plan(self, wanted: Mapping[str, int]) -> MigPlan:
        order = [profile for profile, count in wanted.items() for _ in range(count)]
        in_use = dict(self._in_use)
        placed, missing = self._place(order, in_use, list(self._snapshots))
        if not missing:
            return MigPlan(tuple(placed))
        blockers = tuple(self._blockers(profile, count, in_use) for profile, count in Counter(missing).items())
        move = self._claims_to_move(missing, in_use, blockers)
        return MigPlan(tuple(placed), blockers, move, self._better_order(wanted))

    def _place(self, order: Sequence[str], in_use: _InUse, nodes: Sequence[str]) -> tuple[list[Placed], list[str]]:
        """Gives devices out in ``order``; ``in_use`` is changed. What found no place comes second."""
        placed: list[Placed] = []
        missing: list[str] = []
        for profile in order:
            found = None if profile in missing else self._first(profile, in_use, nodes)
            if found is None:
                missing.append(profile)
            else:
                node, device = found
                in_use[device] = (Holding(_PLANNED),)
                placed.append(Placed(profile, node, device.device))
        return placed, missing

    def _first(self, profile: str, in_use: _InUse, nodes: Sequence[str]) -> tuple[str, DeviceId] | None:
        for node in nodes:
            outcome = self._allocate(profile, in_use, node)
            if not isinstance(outcome, Failure):
                return node, outcome
        return None

    def _allocate(self, profile: str, in_use: _InUse, node: str) -> DeviceId | Failure:
        snapshot = self._snapshots[node]
        request = DeviceRequest(profile, _CLASS, (profile,))
        claim = Claim(_PLANNED, (Request(profile, (request,)),))
        held = {device: holdings for device, holdings in in_use.items() if device.pool == node}
        allocator = Allocator(_ProfileEngine(), Snapshot(snapshot.pools, snapshot.classes, held))
        outcome = allocator.allocate(Node(node), [claim])
        return outcome if isinstance(outcome, Failure) else outcome[0].results[0].device.id

    def _blockers(self, profile: str, count: int, in_use: _InUse) -> Blockers:
        places, taken = 0, 0
        holders: dict[ClaimKey, None] = {}
        tainted: Counter[str] = Counter()
        for node in self._snapshots:
            outcome = self._allocate(profile, in_use, node)
            findings = outcome.findings if isinstance(outcome, Failure) else ()
            for finding in findings:
                for rejection, number in finding.rejections:
                    if rejection.kind in (RejectionKind.REQUEST_SELECTOR, RejectionKind.CLASS_SELECTOR):
                        continue
                    places += number
                    if rejection.kind is RejectionKind.TAINT:
                        tainted[rejection.detail] += number
                    else:
                        taken += number
                        holders.update(dict.fromkeys(rejection.holders))
        holders.pop(_PLANNED, None)
        return Blockers(profile, count, places, taken, tuple(holders), dict(tainted))

    def _claims_to_move(
        self, missing: Sequence[str], in_use: _InUse, blockers: Iterable[Blockers]
    ) -> tuple[ClaimKey, ...]:
        """Sets of claims in the way, the smallest first; the claims that hold the least memory are tried first."""
        memory: Counter[ClaimKey] = Counter()
        for snapshot in self._snapshots.values():
            for device in (device for pool in snapshot.pools for device in pool.devices if device.id in in_use):
                for holder in {holding.claim for holding in in_use[device.id]}:
                    memory[holder] += _memory(device)
        candidates = sorted(
            {holder for each in blockers for holder in each.holders}, key=lambda claim: (memory[claim], claim)
        )
        for chosen in islice(_sets(candidates), _MOST_TRIES):
            without = {device: _without(chosen, holdings) for device, holdings in in_use.items()}
            without = {device: holdings for device, holdings in without.items() if holdings}
            nodes = sorted({device.pool for device in in_use if without.get(device) != in_use[device]})
            if not self._place(missing, without, [node for node in nodes if node in self._snapshots])[1]:
                return chosen
        return ()

    def _better_order(self, wanted: Mapping[str, int]) -> tuple[str, ...]:
        """The largest first, when that makes everything fit."""
        largest_first = sorted(wanted, key=_slices, reverse=True)
        order = [profile for profile in largest_first for _ in range(wanted[profile])]
        if largest_first == list(wanted) or self._place(order, dict(self._in_use), list(self._snapshots))[1]:
            return ()
        return tuple(largest_first)


def _memory(device: Device) -> int:
    """Bytes of device memory; 0 where none is published."""
    memory = device.capacity.get(device.id.driver, {}).get("memory")
    return memory.value() if memory is not None else 0


def _without(claims: Sequence[ClaimKey], holdings: Iterable[Holding]) -> tuple[Holding, ...]:
    return tuple(holding for holding in holdings if holding.claim not in claims)


def _sets(candidates: Sequence[ClaimKey]) -> Iterator[tuple[ClaimKey, ...]]:
    for size in range(1, _MOST_MOVES + 1):
        yield from combinations(candidates, size)


def _slices(profile: str) -> int:
    """Compute slices of the GPU instance: the 3 of 1c.3g.40gb."""
    return int(profile.rpartition("g.")[0].rpartition(".")[2])
