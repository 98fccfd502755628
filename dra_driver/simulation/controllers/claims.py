"""What the resourceclaim controller decides, as pure functions over raw objects.

Follows pkg/controller/resourceclaim of kube-controller-manager: claims from templates for pods, and the end of claims
whose pods are done.
"""

from __future__ import annotations

from collections.abc import Mapping

from dra_driver.kube.interface import Obj
from dra_driver.simulation.scheduler.commit import FINALIZER
from dra_driver.simulation.scheduler.extended import CLAIM_ANNOTATION
from dra_driver.simulation.scheduler.pods import FINISHED_PHASES

POD_CLAIM_ANNOTATION = "resource.kubernetes.io/pod-claim-name"


def is_finished(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in FINISHED_PHASES


def missing_template_claims(pod: Obj) -> list[Obj]:
    """The entries of ``spec.resourceClaims`` for which a claim has to be made from a template."""
    if pod["metadata"].get("deletionTimestamp") or is_finished(pod):
        return []
    done = {entry["name"] for entry in (pod.get("status") or {}).get("resourceClaimStatuses") or ()}
    entries = pod["spec"].get("resourceClaims") or ()
    return [entry for entry in entries if entry.get("resourceClaimTemplateName") and entry["name"] not in done]


def claim_from_template(pod: Obj, entry: str, template: Obj) -> Obj:
    """The claim to create: spec, labels and annotations from the template, owned by the pod."""
    pod_metadata, given = pod["metadata"], template["spec"].get("metadata") or {}
    owner = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": pod_metadata["name"],
        "uid": pod_metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    metadata: Obj = {
        "generateName": f"{pod_metadata['name']}-{entry}-",
        "namespace": pod_metadata["namespace"],
        "annotations": {**(given.get("annotations") or {}), POD_CLAIM_ANNOTATION: entry},
        "ownerReferences": [owner],
    }
    if given.get("labels"):
        metadata["labels"] = dict(given["labels"])
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": metadata,
        "spec": template["spec"]["spec"],
    }


def is_claim_for(claim: Obj, pod: Obj, entry: str) -> bool:
    """A claim made for this very entry of this very pod, perhaps by a controller that died before it said so."""
    annotations = claim["metadata"].get("annotations") or {}
    return annotations.get(POD_CLAIM_ANNOTATION) == entry and owner_uid(claim) == pod["metadata"]["uid"]


def owner_uid(claim: Obj) -> str | None:
    """The pod a claim was generated for; None for a claim that a user made."""
    for owner in claim["metadata"].get("ownerReferences") or ():
        if owner.get("controller") and owner["kind"] == "Pod":
            uid: str = owner["uid"]
            return uid
    return None


def remaining_consumers(claim: Obj, pods: Mapping[str, Obj]) -> list[Obj]:
    """Entries of reservedFor that still count; ``pods`` is by UID. Consumers other than pods are left alone."""
    consumers = (claim.get("status") or {}).get("reservedFor") or ()
    return [entry for entry in consumers if entry["resource"] != "pods" or _uses(pods.get(entry["uid"]))]


def _uses(pod: Obj | None) -> bool:
    return pod is not None and not is_finished(pod)


def is_unneeded(claim: Obj, pods: Mapping[str, Obj]) -> bool:
    """A generated claim whose pod is gone or done; it is deleted, and does not wait for the pod's own deletion."""
    annotations = claim["metadata"].get("annotations") or {}
    uid = owner_uid(claim)
    generated = POD_CLAIM_ANNOTATION in annotations or CLAIM_ANNOTATION in annotations
    return generated and uid is not None and not _uses(pods.get(uid))


def without_finalizer(claim: Obj) -> Obj:
    metadata = claim["metadata"]
    rest = [entry for entry in metadata.get("finalizers") or () if entry != FINALIZER]
    return {**claim, "metadata": {**metadata, "finalizers": rest}}


def is_protected(claim: Obj) -> bool:
    return FINALIZER in (claim["metadata"].get("finalizers") or ())
