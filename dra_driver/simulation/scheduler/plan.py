"""Decides for one pod: which node, which devices for which claim, or the sentence that says why not. Pure.

A :class:`Cluster` is what was read at the beginning of a round, with what the round itself has allocated since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dra_driver.allocator.allocate import Allocator, Snapshot, devices_in_use
from dra_driver.allocator.model import AllocationResult, Claim
from dra_driver.allocator.nodes import Node, matches_selector
from dra_driver.allocator.parse import UnsupportedError, parse_claim
from dra_driver.allocator.reasons import Failure, explain
from dra_driver.allocator.selectors import SelectorEngine
from dra_driver.kube.interface import Obj
from dra_driver.simulation.scheduler import extended
from dra_driver.simulation.scheduler.pods import claim_references, why_not_on


@dataclass(slots=True)
class Cluster:
    """The objects a round works on. ``claims`` is kept up to date as the round allocates."""

    nodes: Sequence[Obj]
    slices: Sequence[Obj]
    classes: Sequence[Obj]
    claims: dict[tuple[str, str], Obj]  # by (namespace, name)
    pods_per_node: Counter[str] = field(default_factory=Counter)
    _parsed: Snapshot | None = field(default=None, init=False)

    def snapshot(self) -> Snapshot:
        """With the devices that are in use now; slices and classes are read once per round."""
        if self._parsed is None:
            self._parsed = Snapshot.from_objects(self.slices, self.classes, ())
        return replace(self._parsed, in_use=devices_in_use(self.claims.values()))


@dataclass(frozen=True, slots=True)
class Placement:
    """Bind the pod to ``node``. ``reserve`` are allocated claims; ``allocate`` pairs claims with what they get; the
    special claim for extended resources, when one has to be made, comes last in ``allocate`` and has no name."""

    node: str
    reserve: tuple[Obj, ...]
    allocate: tuple[tuple[Obj, AllocationResult], ...]
    extended: tuple[extended.ResourceRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """``message`` is for the pod's condition and Event; ``passing`` is usually over before anybody reads it."""

    message: str
    passing: bool = False


@dataclass(frozen=True, slots=True)
class _Wants:
    """The claims of a pod: allocated ones pin the node, the others have to be allocated."""

    allocated: tuple[Obj, ...]
    pending: tuple[tuple[Obj, Claim], ...]
    extended: tuple[extended.ResourceRequest, ...]


def place(pod: Obj, cluster: Cluster, engine: SelectorEngine) -> Placement | Unschedulable:
    wants = _wants(pod, cluster)
    if isinstance(wants, Unschedulable):
        return wants
    rejected: Counter[str] = Counter()
    candidates: list[Obj] = []
    for node in cluster.nodes:
        problem = why_not_on(pod, node) or _why_claims_are_elsewhere(wants.allocated, node)
        if problem:
            rejected[problem] += 1
        else:
            candidates.append(node)
    failures: dict[str, Failure] = {}
    if candidates:
        best = _best(candidates, wants, cluster, engine, failures)
        if best is not None:
            node_name, results = best
            pairs = tuple((claim, result) for (claim, _), result in zip(wants.pending, results, strict=True))
            return Placement(node_name, wants.allocated, pairs, wants.extended)
    parts = [f"{count} {problem}" for problem, count in rejected.items()]
    if failures:
        parts.append(explain(failures))
    total = len(cluster.nodes)
    return Unschedulable(f"0/{total} nodes are available: " + "; ".join(parts) if total else "there are no nodes")


def _wants(pod: Obj, cluster: Cluster) -> _Wants | Unschedulable:
    allocated: list[Obj] = []
    pending: list[tuple[Obj, Claim]] = []
    found = _claims_of(pod, cluster.claims)
    if isinstance(found, Unschedulable):
        return found
    try:
        requests = extended.extended_requests(pod, cluster.classes)
        special = next((claim for claim in cluster.claims.values() if extended.is_special_claim_of(claim, pod)), None)
        for request in requests:
            if request.class_name is None:
                known = f"no DeviceClass stands for it (container {request.container})"
                return Unschedulable(f"Insufficient {request.resource}: {known}")
        if special is not None:
            found.append(special)
        elif requests:
            found.append(extended.special_claim(pod, requests))
        for claim in found:
            if (claim.get("status") or {}).get("allocation"):
                allocated.append(claim)
            else:
                pending.append((claim, parse_claim(claim)))
    except (UnsupportedError, ValueError) as error:
        return Unschedulable(str(error))
    return _Wants(tuple(allocated), tuple(pending), requests)


def _claims_of(pod: Obj, claims: Mapping[tuple[str, str], Obj]) -> list[Obj] | Unschedulable:
    namespace = pod["metadata"]["namespace"]
    found: list[Obj] = []
    for reference in claim_references(pod):
        if not reference.needed:
            continue
        if reference.claim_name is None:
            message = f"waiting for the claim of {reference.entry!r} to be created from its template"
            return Unschedulable(message, passing=True)
        claim = claims.get((namespace, reference.claim_name))
        if claim is None:
            return Unschedulable(f"ResourceClaim {namespace}/{reference.claim_name} does not exist")
        if claim["metadata"].get("deletionTimestamp"):
            return Unschedulable(f"ResourceClaim {namespace}/{reference.claim_name} is being deleted")
        found.append(claim)
    return found


def _why_claims_are_elsewhere(allocated: Sequence[Obj], node: Obj) -> str:
    for claim in allocated:
        selector = claim["status"]["allocation"].get("nodeSelector")
        if selector is not None and not matches_selector(selector, Node.of(node)):
            metadata = claim["metadata"]
            return f"node(s) cannot reach the devices of claim {metadata['namespace']}/{metadata['name']}"
    return ""


def _best(
    candidates: Sequence[Obj],
    wants: _Wants,
    cluster: Cluster,
    engine: SelectorEngine,
    failures: dict[str, Failure],
) -> tuple[str, tuple[AllocationResult, ...]] | None:
    """The node with the better alternatives, the fewest devices and shares in use, the fewest pods; ties by name.

    kube-scheduler scores prioritised lists too (KEP-4816), and its other plugins spread.
    """
    snapshot = cluster.snapshot()
    used_by_pool = Counter(device.pool for device, holdings in snapshot.in_use.items() for _ in holdings)
    allocator = Allocator(engine, snapshot)
    claims = [claim for _, claim in wants.pending]

    def load(node: Obj) -> tuple[int, int, str]:
        name = node["metadata"]["name"]
        used = sum(used_by_pool[pool.name] for pool in snapshot.pools_on(Node.of(node)))
        return used, cluster.pods_per_node[name], name

    best: tuple[int, str, tuple[AllocationResult, ...]] | None = None
    for node in sorted(candidates, key=load):
        outcome = allocator.allocate(Node.of(node), claims)
        name = node["metadata"]["name"]
        if isinstance(outcome, Failure):
            failures[name] = outcome
            if outcome.fatal:
                return None
            continue
        rank = sum(choice for result in outcome for choice in result.choices)
        if best is None or rank < best[0]:
            best = rank, name, outcome
        if rank == 0:
            break
    return (best[1], best[2]) if best else None
