"""Extended resources through DRA (KEP-5004): from ``nvidia.com/gpu: 2`` in a container to a claim.

A DeviceClass stands for a resource name by ``spec.extendedResourceName``, and any class stands for
``deviceclass.resource.kubernetes.io/<class>``. The claim has one request per container and resource, named
``container-<i>-request-<j>``; init containers come first. Pure functions over raw objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dra_driver.kube.interface import Obj
from dra_driver.quantity import Quantity

CLAIM_ANNOTATION = "resource.kubernetes.io/extended-resource-claim"
_CLASS_PREFIX = "deviceclass.resource.kubernetes.io/"
_NATIVE_DOMAIN = "kubernetes.io/"


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """One extended resource of one container. ``class_name`` is None when no DeviceClass stands for it."""

    container: str
    container_index: int
    resource: str
    count: int
    class_name: str | None


def extended_requests(pod: Obj, classes: Sequence[Obj]) -> tuple[ResourceRequest, ...]:
    """Raises ValueError, naming container and resource, for an amount that is not a whole number."""
    by_name = _classes_by_resource(classes)
    known = {entry["metadata"]["name"] for entry in classes}
    found: list[ResourceRequest] = []
    containers = [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]
    for index, container in enumerate(containers):
        resources = container.get("resources") or {}
        amounts = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for resource in sorted(filter(_is_extended, amounts)):
            count = _whole(container["name"], resource, amounts[resource])
            if count == 0:
                continue
            if resource.startswith(_CLASS_PREFIX):
                named = resource.removeprefix(_CLASS_PREFIX)
                class_name = named if named in known else None
            else:
                class_name = by_name.get(resource)
            found.append(ResourceRequest(container["name"], index, resource, count, class_name))
    return tuple(found)


def is_special_claim_of(claim: Obj, pod: Obj) -> bool:
    annotations = claim["metadata"].get("annotations") or {}
    owners = claim["metadata"].get("ownerReferences") or ()
    owned = any(owner["uid"] == pod["metadata"]["uid"] for owner in owners)
    return annotations.get(CLAIM_ANNOTATION) == "true" and owned


def special_claim(pod: Obj, requests: Iterable[ResourceRequest]) -> Obj:
    """The claim to create, without a name: the API server makes one from generateName."""
    metadata = pod["metadata"]
    owner = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {
            "generateName": f"{metadata['name']}-extended-resources-",
            "namespace": metadata["namespace"],
            "annotations": {CLAIM_ANNOTATION: "true"},
            "ownerReferences": [owner],
        },
        "spec": {"devices": {"requests": [_request(name, request) for name, request in _named(requests)]}},
    }


def special_claim_status(claim_name: str, requests: Iterable[ResourceRequest]) -> Obj:
    """``pod.status.extendedResourceClaimStatus``: tells the kubelet which container gets which request."""
    mappings = [
        {"containerName": request.container, "resourceName": request.resource, "requestName": name}
        for name, request in _named(requests)
    ]
    return {"resourceClaimName": claim_name, "requestMappings": mappings}


def _named(requests: Iterable[ResourceRequest]) -> list[tuple[str, ResourceRequest]]:
    seen: dict[int, int] = {}
    named = []
    for request in requests:
        number = seen.get(request.container_index, 0)
        seen[request.container_index] = number + 1
        named.append((f"container-{request.container_index}-request-{number}", request))
    return named


def _request(name: str, request: ResourceRequest) -> Obj:
    exactly = {"deviceClassName": request.class_name, "allocationMode": "ExactCount", "count": request.count}
    return {"name": name, "exactly": exactly}


def _is_extended(resource: str) -> bool:
    """helper.IsExtendedResourceName of the core API: a domain that is not Kubernetes' own."""
    if resource.startswith(_CLASS_PREFIX):
        return True
    return "/" in resource and _NATIVE_DOMAIN not in resource and not resource.startswith("requests.")


def _classes_by_resource(classes: Sequence[Obj]) -> dict[str, str]:
    """The newest class of a name wins, a tie goes to the first name in order (KEP-5004)."""
    ordered = sorted(classes, key=lambda entry: entry["metadata"]["name"], reverse=True)
    ordered.sort(key=lambda entry: str(entry["metadata"].get("creationTimestamp") or ""))
    return {
        entry["spec"]["extendedResourceName"]: entry["metadata"]["name"]
        for entry in ordered
        if entry["spec"].get("extendedResourceName")
    }


def _whole(container: str, resource: str, amount: str | int) -> int:
    quantity = Quantity.parse(amount)
    if not quantity.is_whole() or quantity.value() < 0:
        raise ValueError(f"container {container}: {resource} must be a whole number, not {amount}")
    return quantity.value()
