"""What a scheduler reads from pods and nodes: who waits, for which claims, and which nodes a pod may run on at all.

Pure functions over raw objects. Node rules are the ones that GPU manifests use: nodeSelector, required node affinity,
taints, cordon and readiness; CPU and memory are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from dra_driver.allocator.model import Taint
from dra_driver.allocator.nodes import Node, matches_selector
from dra_driver.allocator.parse import parse_toleration
from dra_driver.allocator.taints import tolerates
from dra_driver.kube.interface import Obj

DEFAULT_SCHEDULER = "default-scheduler"
FINISHED_PHASES = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class ClaimReference:
    """One entry of ``spec.resourceClaims``. ``claim_name`` is None while a claim from a template does not exist yet;
    ``needed`` is False when the template's claim turned out not to be needed (core/v1 PodResourceClaimStatus)."""

    entry: str
    claim_name: str | None
    needed: bool = True


def is_waiting(pod: Obj) -> bool:
    """Whether the pod is this scheduler's to place."""
    spec, metadata = pod["spec"], pod["metadata"]
    return (
        not spec.get("nodeName")
        and not metadata.get("deletionTimestamp")
        and not spec.get("schedulingGates")
        and (spec.get("schedulerName") or DEFAULT_SCHEDULER) == DEFAULT_SCHEDULER
        and (pod.get("status") or {}).get("phase") not in FINISHED_PHASES
    )


def claim_references(pod: Obj) -> tuple[ClaimReference, ...]:
    statuses = {entry["name"]: entry for entry in (pod.get("status") or {}).get("resourceClaimStatuses") or ()}
    references = []
    for entry in pod["spec"].get("resourceClaims") or ():
        name = entry["name"]
        if entry.get("resourceClaimName"):
            references.append(ClaimReference(name, entry["resourceClaimName"]))
        elif name in statuses:
            claim_name = statuses[name].get("resourceClaimName")
            references.append(ClaimReference(name, claim_name, needed=claim_name is not None))
        else:
            references.append(ClaimReference(name, None))
    return tuple(references)


def why_not_on(pod: Obj, node: Obj) -> str:
    """Why the pod may not run on the node, claims aside; empty when it may."""
    spec = pod["spec"]
    if node["spec"].get("unschedulable"):
        return "node(s) were unschedulable"
    if not _is_ready(node):
        return "node(s) were not ready"
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return "node(s) didn't match the pod's nodeSelector"
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is not None and not matches_selector(required, Node.of(node)):
        return "node(s) didn't match the pod's node affinity"
    tolerations = tuple(parse_toleration(entry) for entry in spec.get("tolerations") or ())
    for entry in node["spec"].get("taints") or ():
        taint = Taint(entry["key"], entry.get("value") or "", entry["effect"])
        if taint.effect in ("NoSchedule", "NoExecute") and not any(tolerates(t, taint) for t in tolerations):
            return f"node(s) had untolerated taint {taint}"
    return ""


def _is_ready(node: Obj) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
