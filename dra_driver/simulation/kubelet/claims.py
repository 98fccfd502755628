"""Which claims a pod has, and which of their requests each container gets. Pure functions over raw objects.

Source of rules and wording: kubernetes staging dynamic-resource-allocation/resourceclaim, kubelet cm/dra/manager.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dra_driver.allocator.parse import allocation_results
from dra_driver.kube.interface import Obj


class PodClaimError(Exception):
    """The pod cannot start yet; the text is the kubelet's."""


@dataclass(frozen=True, slots=True)
class PodClaim:
    """One claim of a pod. ``entry`` is its name in the pod's spec, empty for the extended-resource claim."""

    entry: str
    claim_name: str
    owned_by_pod: bool  # made from a template, so its owner must be the pod


def pod_claims(pod: Obj) -> tuple[PodClaim, ...]:
    """Claims in the order of the pod's spec. Raises :class:`PodClaimError` while one was not created yet."""
    claims = []
    for entry in pod["spec"].get("resourceClaims") or ():
        name = entry["name"]
        if entry.get("resourceClaimName"):
            claims.append(PodClaim(name, entry["resourceClaimName"], owned_by_pod=False))
            continue
        statuses = _status(pod).get("resourceClaimStatuses") or ()
        found = next((status for status in statuses if status["name"] == name), None)
        if found is None:
            raise PodClaimError(f"ResourceClaim not created yet: {name}")
        if found.get("resourceClaimName"):  # none at all means that none was needed
            claims.append(PodClaim(name, found["resourceClaimName"], owned_by_pod=True))
    extended = _status(pod).get("extendedResourceClaimStatus")
    if extended:
        claims.append(PodClaim("", extended["resourceClaimName"], owned_by_pod=False))
    return tuple(claims)


def check_claim(pod: Obj, pod_claim: PodClaim, claim: Obj) -> None:
    """Raises :class:`PodClaimError` unless ``claim`` is this pod's, reserved for it, and allocated."""
    pod_meta, claim_meta = pod["metadata"], claim["metadata"]
    if pod_claim.owned_by_pod:
        owners = claim_meta.get("ownerReferences") or ()
        if not any(owner.get("controller") and owner.get("uid") == pod_meta["uid"] for owner in owners):
            raise PodClaimError(
                f"ResourceClaim {pod_claim.claim_name} was not created for pod {pod_meta['namespace']}/"
                f"{pod_meta['name']} (pod is not owner)"
            )
    reserved = claim.get("status", {}).get("reservedFor") or ()
    if not any(user.get("resource") == "pods" and user.get("uid") == pod_meta["uid"] for user in reserved):
        raise PodClaimError(
            f"pod {pod_meta['name']} ({pod_meta['uid']}) is not allowed to use ResourceClaim {pod_claim.claim_name} "
            f"({claim_meta['uid']})"
        )
    if not claim.get("status", {}).get("allocation"):
        raise PodClaimError(f"ResourceClaim {pod_claim.claim_name}: not allocated")


def claim_drivers(claim: Obj) -> tuple[str, ...]:
    """Drivers with a device in the claim's allocation, each once."""
    return tuple(dict.fromkeys(result["driver"] for result in allocation_results(claim)))


def container_claims(pod: Obj, container: Obj) -> Iterator[tuple[str, str, str]]:
    """(name in the pod's status, claim name, request name) of each of the container's claim entries.

    Claims of extended resources are not among them: the kubelet tells no health of those (kubernetes #140060).
    """
    by_entry = {claim.entry: claim.claim_name for claim in pod_claims(pod) if claim.entry}
    for wanted in container.get("resources", {}).get("claims") or ():
        request = wanted.get("request") or ""
        if wanted["name"] in by_entry:
            name = f"claim:{wanted['name']}/{request}" if request else f"claim:{wanted['name']}"
            yield name, by_entry[wanted["name"]], request


def container_requests(pod: Obj, container: Obj) -> Iterator[tuple[str, str]]:
    """(claim name, request name) of one container; an empty request name means all requests of that claim."""
    wanted = container.get("resources", {}).get("claims") or ()
    by_entry = {claim.entry: claim.claim_name for claim in pod_claims(pod) if claim.entry}
    # In the order of the pod's claims, as the kubelet walks them.
    for entry, claim_name in by_entry.items():
        for claim in wanted:
            if claim["name"] == entry:
                yield claim_name, claim.get("request") or ""
    extended = _status(pod).get("extendedResourceClaimStatus")
    if extended:
        resources = container.get("resources", {})
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for mapping in extended.get("requestMappings") or ():
            if mapping["containerName"] == container["name"] and mapping["resourceName"] in asked:
                yield extended["resourceClaimName"], mapping["requestName"]


def _status(pod: Obj) -> Obj:
    status: Obj = pod.get("status") or {}
    return status
