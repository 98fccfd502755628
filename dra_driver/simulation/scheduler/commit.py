"""Writes a placement: claims first, the binding last, so that a pod is never bound without its devices.

Per claim, as kube-scheduler does (pkg/scheduler/framework/plugins/dynamicresources, bindClaim): the finalizer, then
allocation and reservedFor in one status update. Every update carries the resourceVersion that was read, so a claim that
somebody else changed is a Conflict, and the pod is tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dra_driver.allocator.status import allocation_status
from dra_driver.kube.interface import PODS, RESOURCE_CLAIMS, KubeApi, Obj
from dra_driver.simulation.scheduler import extended
from dra_driver.simulation.scheduler.plan import Placement

FINALIZER = "resource.kubernetes.io/delete-protection"


class SchedulerApi(KubeApi, Protocol):
    """KubeApi and the ``binding`` subresource of pods."""

    def bind(self, name: str, namespace: str, node_name: str) -> None: ...


def commit(
    api: SchedulerApi, pod: Obj, placement: Placement, timestamp: str, new_share_id: Callable[[], str]
) -> list[Obj]:
    """Returns the claims as written. Raises ApiError; what was written so far is used by the next try."""
    written = [_reserve(api, claim, pod) for claim in placement.reserve]
    for claim, result in placement.allocate:
        allocation = allocation_status(result, placement.node, timestamp, new_share_id)
        written.append(_allocate(api, claim, allocation, pod))
    if placement.extended:
        special = next(claim for claim in written if extended.is_special_claim_of(claim, pod))
        _tell_kubelet(api, pod, special, placement)
    api.bind(pod["metadata"]["name"], pod["metadata"]["namespace"], placement.node)
    return written


def _allocate(api: KubeApi, claim: Obj, allocation: Obj, pod: Obj) -> Obj:
    metadata = claim["metadata"]
    finalizers = metadata.get("finalizers") or []
    protected = {**claim, "metadata": {**metadata, "finalizers": [*finalizers, FINALIZER]}}
    if not metadata.get("name"):
        claim = api.create(RESOURCE_CLAIMS, protected)
    elif FINALIZER not in finalizers:
        claim = api.update(RESOURCE_CLAIMS, protected)
    status = {
        **(claim.get("status") or {}),
        "allocation": allocation,
        "reservedFor": [_consumer(pod)],
    }
    return api.update(RESOURCE_CLAIMS, {**claim, "status": status}, subresource="status")


def _reserve(api: KubeApi, claim: Obj, pod: Obj) -> Obj:
    status = claim["status"]
    consumers = status.get("reservedFor") or []
    if any(entry["uid"] == pod["metadata"]["uid"] for entry in consumers):
        return claim
    changed = {**claim, "status": {**status, "reservedFor": [*consumers, _consumer(pod)]}}
    return api.update(RESOURCE_CLAIMS, changed, subresource="status")


def _consumer(pod: Obj) -> Obj:
    return {"resource": "pods", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}


def _tell_kubelet(api: KubeApi, pod: Obj, special: Obj, placement: Placement) -> None:
    status = extended.special_claim_status(special["metadata"]["name"], placement.extended)
    if (pod.get("status") or {}).get("extendedResourceClaimStatus") != status:
        patch: Obj = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"extendedResourceClaimStatus": status}}
        api.patch(PODS, pod["metadata"]["name"], patch, pod["metadata"]["namespace"], subresource="status")
