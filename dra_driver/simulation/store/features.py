"""Feature gates of the real server: a field whose gate is off is dropped, unless the stored object already has it.

Names and fields are those of Kubernetes 1.37 (pkg/features/kube_features.go, and dropDisabledFields of the strategies
in pkg/registry/resource).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dra_driver.kube.interface import Obj
from dra_driver.simulation.store.store import TypeKey

OFF_BY_DEFAULT = frozenset(
    {
        "DRAPartitionableDevicesType",
        "DRANodeAllocatableResources",
        "DRAListTypeAttributes",
        "DRAOptionalNodeOperations",
        "DRADeviceCompatibilityGroups",
        "DRADerivedAttributes",
    }
)
"""Alpha features of 1.37, off unless an administrator turned them on."""

_Holders = Callable[[Obj], Iterator[Obj]]
_Rule = tuple[_Holders, tuple[str, ...]]  # the dictionaries that may hold the fields, and the fields


def _at(obj: Any, *path: str) -> Iterator[Obj]:
    """Every dictionary at a path; ``*`` means every item of a list or every value of a map."""
    if not path:
        if isinstance(obj, dict):
            yield obj
        return
    head, *rest = path
    if head == "*":
        items = obj.values() if isinstance(obj, dict) else obj if isinstance(obj, list) else ()
        for item in items:
            yield from _at(item, *rest)
    elif isinstance(obj, dict) and head in obj:
        yield from _at(obj[head], *rest)


def _paths(*paths: str) -> _Holders:
    split = [tuple(p.split(".")) for p in paths]
    return lambda obj: (found for path in split for found in _at(obj, *path))


_DEVICES = _paths("spec.devices.*")
_SLICE: dict[str, tuple[_Rule, ...]] = {
    "DRAPartitionableDevices": (
        (_paths("spec"), ("sharedCounters", "perDeviceNodeSelection")),
        (_DEVICES, ("consumesCounters", "nodeName", "nodeSelector", "allNodes")),
    ),
    "DRADeviceTaints": ((_DEVICES, ("taints",)),),
    "DRAConsumableCapacity": (
        (_DEVICES, ("allowMultipleAllocations",)),
        (_paths("spec.devices.*.capacity.*"), ("requestPolicy",)),
    ),
    "DRADeviceBindingConditions": ((_DEVICES, ("bindsToNode", "bindingConditions", "bindingFailureConditions")),),
    "DRAPartitionableDevicesType": ((_paths("spec"), ("partitionTypeAttribute",)),),
    "DRANodeAllocatableResources": ((_DEVICES, ("nodeAllocatableResources",)),),
    "DRAListTypeAttributes": ((_paths("spec.devices.*.attributes.*"), ("ints", "bools", "strings", "versions")),),
    "DRAOptionalNodeOperations": ((_paths("spec"), ("skipNodeOperations",)),),
    "DRADeviceCompatibilityGroups": ((_paths("spec.devices.*.consumesCounters.*"), ("compatibilityGroups",)),),
}


def _claim_rules(spec: str) -> dict[str, tuple[_Rule, ...]]:
    """Rules for a claim's spec at this path; a template nests it one level deeper."""
    requests = f"{spec}.devices.requests.*"
    exactly, alternatives = f"{requests}.exactly", f"{requests}.firstAvailable.*"
    results = _paths("status.allocation.devices.results.*")
    return {
        "DRAPrioritizedList": ((_paths(requests), ("firstAvailable",)),),
        "DRAAdminAccess": ((_paths(exactly), ("adminAccess",)), (results, ("adminAccess",))),
        "DRADeviceTaints": ((_paths(exactly, alternatives), ("tolerations",)), (results, ("tolerations",))),
        "DRAConsumableCapacity": (
            (_paths(exactly, alternatives), ("capacity",)),
            (_paths(f"{spec}.devices.constraints.*"), ("distinctAttribute",)),
            (results, ("shareID", "consumedCapacity")),
            (_paths("status.devices.*"), ("shareID",)),
        ),
        "DRADeviceBindingConditions": ((results, ("bindingConditions", "bindingFailureConditions")),),
        "DRAResourceClaimDeviceStatus": ((_paths("status"), ("devices",)),),
        "DRAOptionalNodeOperations": ((results, ("skipNodeOperations",)),),
        "DRADerivedAttributes": ((_paths(exactly, alternatives), ("derivedAttributes",)),),
    }


_RULES: dict[TypeKey, dict[str, tuple[_Rule, ...]]] = {
    ("resource.k8s.io", "resourceslices"): _SLICE,
    ("resource.k8s.io", "resourceclaims"): _claim_rules("spec"),
    ("resource.k8s.io", "resourceclaimtemplates"): _claim_rules("spec.spec"),
    ("resource.k8s.io", "deviceclasses"): {"DRAExtendedResource": ((_paths("spec"), ("extendedResourceName",)),)},
}
KNOWN = frozenset(feature for rules in _RULES.values() for feature in rules)


def drop_disabled(kind: TypeKey, disabled: frozenset[str], new: Obj, old: Obj | None) -> None:
    """Remove fields of disabled features from ``new``, which is changed."""
    for feature, rules in _RULES.get(kind, {}).items():
        if feature not in disabled or (old is not None and _uses(rules, old)):
            continue
        for holders, fields in rules:
            for holder in holders(new):
                for field in fields:
                    holder.pop(field, None)


def _uses(rules: tuple[_Rule, ...], obj: Obj) -> bool:
    return any(field in holder for holders, fields in rules for holder in holders(obj) for field in fields)
