"""Which GPUs a container must see, from its pod and the pod's claims. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dra_driver.devices.naming import MigName, parse_name
from dra_driver.kube.interface import Obj
from e2e.kit.workloads import GPU_CLASS

DRIVER = GPU_CLASS  # the driver has the name of its class


@dataclass(frozen=True, slots=True)
class Result:
    """One allocated device of this driver."""

    request: str
    pool: str
    device: str

    @property
    def minor(self) -> int:
        """The N of /dev/nvidiaN; of a MIG device, its GPU's."""
        return parse_name(self.device).minor

    @property
    def is_mig(self) -> bool:
        return isinstance(parse_name(self.device), MigName)


def results_of(claim: Obj) -> tuple[Result, ...]:
    """Empty for a claim that is not allocated."""
    allocation = (claim.get("status") or {}).get("allocation") or {}
    found = (allocation.get("devices") or {}).get("results") or ()
    return tuple(
        Result(result["request"], result["pool"], result["device"]) for result in found if result["driver"] == DRIVER
    )


def claim_names(pod: Obj) -> Mapping[str, str]:
    """Names of the pod's ResourceClaims by the entry of ``resourceClaims``; what is not made yet is missing.

    The claim that the scheduler made for extended resources has the entry ``""``.
    """
    status = pod.get("status") or {}
    made = {entry["name"]: entry.get("resourceClaimName") for entry in status.get("resourceClaimStatuses") or ()}
    found = {
        entry["name"]: entry.get("resourceClaimName") or made.get(entry["name"])
        for entry in pod["spec"].get("resourceClaims") or ()
    }
    found[""] = (status.get("extendedResourceClaimStatus") or {}).get("resourceClaimName")
    return {entry: name for entry, name in found.items() if name}


def devices_of_container(pod: Obj, container: str, claims: Mapping[str, Obj]) -> tuple[Result, ...]:
    """``claims`` by name. A container sees the devices of the claims, or single requests, that it names."""
    names = claim_names(pod)
    spec = next(entry for entry in pod["spec"]["containers"] if entry["name"] == container)
    found: list[Result] = []
    for reference in (spec.get("resources") or {}).get("claims") or ():
        results = results_of(claims[names[reference["name"]]])
        found += [result for result in results if _is_of(result, reference.get("request"))]
    special = (pod.get("status") or {}).get("extendedResourceClaimStatus") or {}
    for mapping in special.get("requestMappings") or ():
        if mapping["containerName"] == container:
            results = results_of(claims[special["resourceClaimName"]])
            found += [result for result in results if _is_of(result, mapping["requestName"])]
    return tuple(found)


def minors(results: Iterable[Result]) -> set[int]:
    return {result.minor for result in results}


def _is_of(result: Result, request: str | None) -> bool:
    """A result of an alternative is ``request/alternative``; containers name the request."""
    return request is None or result.request.partition("/")[0] == request
