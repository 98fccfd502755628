"""Why claims do not fit: which request failed on which node, and what became of every device there, in counts.

kube-scheduler says "cannot allocate all claims" whatever the cause. Here each device of a node is put under the first
thing that rejects it, and equal findings of several nodes are added up into one sentence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dra_driver.allocator.consumption import CapacityRequestError
from dra_driver.allocator.eligibility import Eligibility, Rejection, RejectionKind, SelectorFailedError
from dra_driver.allocator.model import MAX_DEVICES_PER_CLAIM, AllocationMode, Claim, ClaimKey, Device, DeviceRequest
from dra_driver.allocator.pools import Pool
from dra_driver.allocator.search import Search, SearchLimitError

_HOLDERS_SHOWN = 3
_VALUES_SHOWN = 24
_ATTRIBUTE = re.compile(
    r"""attributes\s*\[\s*["'](?P<domain>[^"']+)["']\s*\]\s*(?:\.\s*(?P<dotted>\w+)|\[\s*["'](?P<quoted>\w+)["']\s*\])"""
)


@dataclass(frozen=True, slots=True)
class RequestFinding:
    """What one way to satisfy a request met on a node: ``devices`` seen, ``fit`` of them usable, the rest rejected."""

    request: DeviceRequest
    devices: int
    fit: int
    rejections: tuple[tuple[Rejection, int], ...] = ()
    shared: int = 0  # how many of those that fit are given in shares
    problem: str = ""  # instead of counts: an All request over a pool that is being updated
    values: tuple[tuple[str, tuple[str, ...]], ...] = ()  # which values an attribute has that selectors ask for in vain


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the claims do not fit on one node.

    Either ``findings`` (one per alternative of the failed request) or ``problem``. ``fatal``: other nodes cannot help.
    """

    problem: str = ""
    claim: ClaimKey | None = None
    request: str = ""
    findings: tuple[RequestFinding, ...] = ()
    fatal: bool = False


def too_many_devices(claims: Sequence[Claim]) -> Failure | None:
    """A claim that asks for more devices than any claim can hold, whatever the node."""
    for claim in claims:
        wanted = sum(min(entry.count for entry in request.alternatives) for request in claim.requests)
        if wanted > MAX_DEVICES_PER_CLAIM:
            problem = f"asks for {wanted} devices; a claim can hold at most {MAX_DEVICES_PER_CLAIM}"
            return Failure(problem=problem, claim=claim.key, fatal=True)
    return None


def diagnose(eligibility: Eligibility, pools: Sequence[Pool], claims: Sequence[Claim]) -> Failure:
    """The first request that cannot be met alone; else the constraints, or requests that compete for devices."""
    return diagnose_alone(eligibility, pools, claims) or _diagnose_together(eligibility, pools, claims)


def diagnose_alone(eligibility: Eligibility, pools: Sequence[Pool], claims: Sequence[Claim]) -> Failure | None:
    """The first request that could not be met even if it were the only one."""
    for claim in claims:
        for request in claim.requests:
            findings = tuple(_examine(eligibility, pools, entry) for entry in request.alternatives)
            if not any(_enough(finding) for finding in findings):
                return Failure(claim=claim.key, request=request.name, findings=findings)
    return None


def _diagnose_together(eligibility: Eligibility, pools: Sequence[Pool], claims: Sequence[Claim]) -> Failure:
    """Every request could be met alone: find the claims or constraints that make them clash."""
    for number, claim in enumerate(claims):
        if _fits(eligibility, pools, claims[: number + 1]):
            continue
        if claim.constraints and _fits(eligibility, pools, [*claims[:number], replace(claim, constraints=())]):
            listed = " and ".join(str(constraint) for constraint in claim.constraints)
            return Failure(problem=f"devices are free, but no set of them satisfies {listed}", claim=claim.key)
        return Failure(problem="its requests together need more devices than are free", claim=claim.key)
    return Failure(problem="the claims do not fit together")


def _fits(eligibility: Eligibility, pools: Sequence[Pool], claims: Sequence[Claim]) -> bool:
    try:
        return Search(eligibility, pools, claims).run() is not None
    except (SearchLimitError, SelectorFailedError, CapacityRequestError):
        return False


def _examine(eligibility: Eligibility, pools: Sequence[Pool], request: DeviceRequest) -> RequestFinding:
    if request.mode is AllocationMode.ALL:
        broken = next((pool for pool in pools if pool.problem), None)
        if broken is not None:
            problem = f"asks for all devices, but pool {broken.name} of {broken.driver} is {broken.problem}"
            return RequestFinding(request, 0, 0, problem=problem)
    devices = [device for pool in pools if not pool.problem for device in pool.devices]
    verdicts = [(device, eligibility.rejection(request, device)) for device in devices]
    counts = Counter(verdict for _, verdict in verdicts if verdict is not None)
    fit = len(verdicts) - counts.total()
    shared = sum(device.allow_multiple_allocations for device, verdict in verdicts if verdict is None)
    values = _asked_attributes(request, eligibility, pools) if not fit and _fails_selection(counts) else ()
    broken_pools = [pool for pool in pools if pool.problem]
    problem = f"pool {broken_pools[0].name} is {broken_pools[0].problem}" if broken_pools and not verdicts else ""
    return RequestFinding(request, len(verdicts), fit, tuple(counts.items()), shared, problem, values)


def _fails_selection(counts: Counter[Rejection]) -> bool:
    """Whether the request's own selector is what no device passes."""
    kinds = {rejection.kind for rejection in counts}
    return RejectionKind.REQUEST_SELECTOR in kinds and kinds <= {*_SELECTION, RejectionKind.SELECTOR_ERROR}


def _asked_attributes(
    request: DeviceRequest, eligibility: Eligibility, pools: Sequence[Pool]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """For each text attribute that the request's selectors name: the values that devices of the class have."""
    of_class = replace(request, selectors=(), capacity={})
    devices = [device for pool in pools if not pool.problem for device in pool.devices]
    candidates = [device for device in devices if _in_class(eligibility, of_class, device)]
    found: list[tuple[str, tuple[str, ...]]] = []
    for name in dict.fromkeys(name for text in request.selectors for name in _attributes_in(text)):
        values = dict.fromkeys(device.attribute(name) for device in candidates)
        texts = tuple(value for value in values if isinstance(value, str))
        if texts and len(texts) <= _VALUES_SHOWN:
            found.append((name.rpartition("/")[2], texts))
    return tuple(found)


def _in_class(eligibility: Eligibility, request: DeviceRequest, device: Device) -> bool:
    try:
        return eligibility.selects(request, device)
    except (SelectorFailedError, CapacityRequestError):
        return False


def _attributes_in(expression: str) -> list[str]:
    """``device.attributes["gpu.nvidia.com"].profile`` is gpu.nvidia.com/profile. Good enough for an explanation."""
    return [f"{match['domain']}/{match['dotted'] or match['quoted']}" for match in _ATTRIBUTE.finditer(expression)]


_SELECTION = (
    RejectionKind.CLASS_SELECTOR,
    RejectionKind.REQUEST_SELECTOR,
    RejectionKind.CAPACITY,
    RejectionKind.REQUEST_POLICY,
)


def _enough(finding: RequestFinding) -> bool:
    if finding.request.mode is AllocationMode.EXACT_COUNT:
        return finding.fit >= finding.request.count
    blocked = any(rejection.kind not in _SELECTION for rejection, _ in finding.rejections)
    return finding.fit > 0 and not blocked and not finding.problem


def explain(failures: Mapping[str, Failure]) -> str:
    """One text for the failures of a pod by node name, equal ones added up; ends without a full stop."""
    groups: dict[tuple[object, ...], list[Failure]] = {}
    for failure in failures.values():
        shape = tuple((finding.request.name, finding.problem) for finding in failure.findings)
        groups.setdefault((failure.claim, failure.request, failure.problem, shape), []).append(failure)
    return "; ".join(_explain_group(group) for group in groups.values())


def _explain_group(group: Sequence[Failure]) -> str:
    failure = group[0]
    subject = f"claim {failure.claim}" if failure.claim else ""
    if failure.request:
        subject += f"{', ' if subject else ''}request {failure.request}"
    if failure.problem:
        return f"{subject}: {failure.problem}" if subject else failure.problem
    where = "1 node" if len(group) == 1 else f"{len(group)} nodes"
    texts = [_explain_finding([entry.findings[number] for entry in group]) for number in range(len(failure.findings))]
    names = [finding.request.name for finding in failure.findings]
    if len(texts) > 1:
        texts = [f"{name}: {text}" for name, text in zip(names, texts, strict=True)]
    return f"{subject}: {where}: " + "; ".join(texts)


def _explain_finding(findings: Sequence[RequestFinding]) -> str:
    request = findings[0].request
    if findings[0].problem:
        return findings[0].problem
    devices = sum(finding.devices for finding in findings)
    if devices == 0:
        return "no device is published (is the driver's plugin running there?)"
    counts: Counter[Rejection] = Counter()
    for finding in findings:
        counts.update(dict(finding.rejections))
    parts = [f"{devices} device{'s exist' if devices > 1 else ' exists'}", *_reject_texts(counts)]
    known: dict[str, dict[str, None]] = {}
    for finding in findings:
        for name, values in finding.values:
            known.setdefault(name, {}).update(dict.fromkeys(values))
    parts += [f"{name} is one of {', '.join(values)}" for name, values in known.items()]
    fit = sum(finding.fit for finding in findings)
    if fit:
        parts.append(f"{fit} would fit, but {_need(request, shared=sum(finding.shared for finding in findings))}")
    return ", ".join(parts)


def _need(request: DeviceRequest, shared: int) -> str:
    if request.mode is AllocationMode.ALL:
        return "all of them are asked"
    once = ", and a request has one share of a device at most" if shared else ""
    return f"{request.count} are asked per node{once}"


def _reject_texts(counts: Counter[Rejection]) -> list[str]:
    texts = [
        _TEXTS[rejection.kind].format(count=count, verb="fails" if count == 1 else "fail", detail=rejection.detail)
        for rejection, count in counts.items()
        if not rejection.holders
    ]
    for kind, text in _HELD.items():
        of_kind = {found: count for found, count in counts.items() if found.kind is kind and found.holders}
        for detail in dict.fromkeys(found.detail for found in of_kind):
            held = {found: count for found, count in of_kind.items() if found.detail == detail}
            names = dict.fromkeys(str(holder) for found in held for holder in found.holders)
            texts.append(text.format(count=sum(held.values()), detail=detail, who=_some(list(names))))
    return texts


def _some(claims: Sequence[str]) -> str:
    rest = len(claims) - _HOLDERS_SHOWN
    listed = ", ".join(claims[:_HOLDERS_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
    return f"claim {listed}" if len(claims) == 1 else f"claims {listed}"


# Findings that have holders: one sentence for all that are short of the same.
_HELD = {
    RejectionKind.IN_USE: "{count} in use by {who}",
    RejectionKind.SHARES: "{count} short of capacity ({detail}), in use by {who}",
    RejectionKind.COUNTERS: "{count} short of shared counters, in use by {who}",
}
_TEXTS = {
    RejectionKind.CLASS_SELECTOR: "{count} {verb} the class's selector {detail}",
    RejectionKind.REQUEST_SELECTOR: "{count} {verb} selector {detail}",
    RejectionKind.SELECTOR_ERROR: "{count}: selector error in {detail}",
    RejectionKind.CAPACITY: "{count} too small ({detail})",
    RejectionKind.REQUEST_POLICY: "{count} given in smaller shares ({detail})",
    RejectionKind.COUNTERS: "{count} larger than its shared counters",
    RejectionKind.TAINT: "{count} tainted {detail} without a toleration",
}
