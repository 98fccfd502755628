"""What this cluster's API server can do: found by asking it, never by its version, except where only a version tells.

Everything is a dry run; nothing is left behind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from dra_driver.kube.interface import (
    DEVICE_CLASSES,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    ApiError,
    Invalid,
    KubeApi,
    NotFound,
    Obj,
    Resource,
)
from e2e.kit.expected import DRIVER
from e2e.kit.workloads import GPU_CLASS, alternative, claim_spec, exactly, first_available

_RULE_VERSIONS = ("v1", "v1beta2", "v1beta1", "v1alpha3")
_EXPRESSION = f"device.driver == '{DRIVER}'"


@dataclass(frozen=True, slots=True)
class Features:
    """``missing`` says of each feature that is not there what was asked and what came of it."""

    version: tuple[int, int]
    taint_rule: Resource | None
    missing: dict[str, str]

    def has(self, feature: str) -> bool:
        return feature not in self.missing


EXTENDED_RESOURCES = "extended resources through DRA"
IMPLICIT_EXTENDED_RESOURCES = "implicit extended resources"
AFTER_DEVICE_PLUGIN = "extended resources through DRA on a node that had them from a device plugin"
DEVICE_TAINTS = "device taints"
PARTITIONS = "partitionable devices"
SHARES = "consumable capacity"
ALL_SHARES = "a scheduler that gives away all shares of a node"
TAINT_RULES = "DeviceTaintRules"
PRIORITIZED_LISTS = "prioritized lists"
ADMIN_ACCESS = "admin access"
HEALTH = "device health in pod status"
HEALTH_MESSAGES = "messages of device health"
CLAIMS_COUNT_AS_EXTENDED = "claims count against quotas of extended resources"


def probe(api: KubeApi, version: tuple[int, int], driver_namespace: str) -> Features:
    """Raises ApiError when the server does not answer. ``driver_namespace`` has a pod whose status can be tried."""
    missing: dict[str, str] = {}
    if not _keeps_extended_name(api):
        missing[EXTENDED_RESOURCES] = "a DeviceClass loses its extendedResourceName (gate DRAExtendedResource)"
        missing[IMPLICIT_EXTENDED_RESOURCES] = missing[EXTENDED_RESOURCES]
    elif version < (1, 35):
        # The scheduler ignores the name: such a pod runs without a device. No API object tells.
        missing[IMPLICIT_EXTENDED_RESOURCES] = f"Kubernetes {_text(version)} ignores the resource (1.35 and later)"
    if version < (1, 35):
        # kubernetes#133784 came with 1.35. What a device plugin has left stays on its Node with an amount of 0.
        missing[AFTER_DEVICE_PLUGIN] = f"for Kubernetes {_text(version)} such a node has none of them (1.35 and later)"
        # kubernetes#134210 came with 1.35; the server only shows it by what it counts later.
        missing[CLAIMS_COUNT_AS_EXTENDED] = f"Kubernetes {_text(version)} does not count them (1.35 and later)"
    if not _keeps_taints(api):
        missing[DEVICE_TAINTS] = "a ResourceSlice loses its devices' taints (gate DRADeviceTaints)"
    if not _keeps_counters(api):
        missing[PARTITIONS] = "a ResourceSlice loses its counters (gate DRAPartitionableDevices)"
    if not _keeps_shares(api):
        missing[SHARES] = "a ResourceSlice loses allowMultipleAllocations (gate DRAConsumableCapacity)"
    elif version < (1, 35):
        # kubernetes#133705, and no skipCounterCheck in allocator_experimental.go of k8s.io/dynamic-resource-allocation
        # v0.34, which also takes the number of a device within a request for its place in the slice: a count that is
        # larger than a slice ends the scheduler with a panic (measured on 1.34.4). Replica devices, which there are
        # without the feature, are devices like others.
        missing[ALL_SHARES] = (
            f"kube-scheduler {_text(version)} goes to no other GPU when the first one's shares are gone, and counts "
            "the counters of a partitionable one for each share"
        )
    rule = _served_rule(api)
    if rule is None or DEVICE_TAINTS in missing:
        missing[TAINT_RULES] = missing.get(DEVICE_TAINTS, "the API server serves no DeviceTaintRule")
    for feature, claim in (
        (PRIORITIZED_LISTS, claim_spec(first_available("gpu", alternative("any")))),
        (ADMIN_ACCESS, claim_spec(exactly(admin=True))),
    ):
        if reason := _refused_or_dropped(api, claim, feature):
            missing[feature] = reason
    missing |= _missing_health(api, driver_namespace)
    return Features(version, rule, missing)


def server_version(nodes: list[Obj]) -> tuple[int, int]:
    """The oldest kubelet's minor: ``(1, 37)``."""
    found = [re.match(r"v(\d+)\.(\d+)", node["status"]["nodeInfo"]["kubeletVersion"]) for node in nodes]
    return min((int(match[1]), int(match[2])) for match in found if match)


def read_version(api: KubeApi) -> tuple[int, int]:
    return server_version(api.list(NODES).items)


def _keeps_extended_name(api: KubeApi) -> bool:
    spec = {"selectors": [{"cel": {"expression": _EXPRESSION}}], "extendedResourceName": "example.com/probe"}
    echo = api.create(DEVICE_CLASSES, {"metadata": {"name": "e2e-probe"}, "spec": spec}, dry_run=True)
    return bool(echo["spec"].get("extendedResourceName"))


def _keeps_taints(api: KubeApi) -> bool:
    spec = {
        "driver": "probe.e2e.gpu-dra.dev",
        "allNodes": True,
        "pool": {"name": "e2e-probe", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "probe", "taints": [{"key": "example.com/probe", "effect": "NoSchedule"}]}],
    }
    echo = api.create(RESOURCE_SLICES, {"metadata": {"name": "e2e-probe"}, "spec": spec}, dry_run=True)
    return bool(echo["spec"]["devices"][0].get("taints"))


def _keeps_counters(api: KubeApi) -> bool:
    spec = {
        "driver": "probe.e2e.gpu-dra.dev",
        "allNodes": True,
        "pool": {"name": "e2e-probe", "generation": 1, "resourceSliceCount": 1},
        "sharedCounters": [{"name": "probe", "counters": {"probe": {"value": "1"}}}],
    }
    echo = api.create(RESOURCE_SLICES, {"metadata": {"name": "e2e-probe"}, "spec": spec}, dry_run=True)
    return bool(echo["spec"].get("sharedCounters"))


def _keeps_shares(api: KubeApi) -> bool:
    spec = {
        "driver": "probe.e2e.gpu-dra.dev",
        "allNodes": True,
        "pool": {"name": "e2e-probe", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "probe", "allowMultipleAllocations": True}],
    }
    echo = api.create(RESOURCE_SLICES, {"metadata": {"name": "e2e-probe"}, "spec": spec}, dry_run=True)
    return bool(echo["spec"]["devices"][0].get("allowMultipleAllocations"))


def _served_rule(api: KubeApi) -> Resource | None:
    for version in _RULE_VERSIONS:
        rule = Resource(
            "resource.k8s.io", version, "devicetaintrules", "DeviceTaintRule", namespaced=False, has_status=True
        )
        try:
            api.list(rule, limit=1)
        except NotFound:
            continue
        return rule
    return None


def _refused_or_dropped(api: KubeApi, spec: Obj, feature: str) -> str:
    """Why a claim with that spec loses a part of it; empty when it is kept, or refused for want of a label only."""
    try:
        echo = api.create(
            RESOURCE_CLAIMS, {"metadata": {"name": "e2e-probe", "namespace": "default"}, "spec": spec}, dry_run=True
        )
    except Invalid as error:
        # Admin access is refused where the namespace is not labelled, so the server knows it.
        return "" if feature == ADMIN_ACCESS and "admin-access" in error.message else f"refused: {error.message}"
    if feature == ADMIN_ACCESS:
        request = echo["spec"]["devices"]["requests"][0]
        return "" if (request.get("exactly") or {}).get("adminAccess") else "the claim loses adminAccess"
    return ""


def _missing_health(api: KubeApi, namespace: str) -> dict[str, str]:
    """Tried on a pod of the driver: the status of a container may speak of any resource that the container requests."""
    pods = api.list(PODS, namespace, limit=1).items
    statuses = (pods[0].get("status") or {}).get("containerStatuses") if pods else None
    if not statuses:
        reason = f"no running pod in {namespace} to try it with"
        return {HEALTH: reason, HEALTH_MESSAGES: reason}
    name = statuses[0]["name"]
    container = next(entry for entry in pods[0]["spec"]["containers"] if entry["name"] == name)
    resource = next(iter((container.get("resources") or {}).get("requests") or ()), "cpu")
    entry = {"name": resource, "resources": [{"resourceID": "probe", "health": "Healthy", "message": "probe"}]}
    patch = {"status": {"containerStatuses": [{**statuses[0], "allocatedResourcesStatus": [entry]}]}}
    try:
        echo = api.patch(PODS, pods[0]["metadata"]["name"], patch, namespace, subresource="status", dry_run=True)
    except ApiError as error:
        return {HEALTH: f"refused: {error.message}", HEALTH_MESSAGES: f"refused: {error.message}"}
    kept = _health_entries(echo, name)
    if not kept:
        reason = "a pod's status loses allocatedResourcesStatus (gate ResourceHealthStatus)"
        return {HEALTH: reason, HEALTH_MESSAGES: reason}
    if not kept[0]["resources"][0].get("message"):
        return {HEALTH_MESSAGES: "the pod's status loses the message"}
    return {}


def _health_entries(pod: Obj, container: str) -> list[Any]:
    status = next(entry for entry in pod["status"]["containerStatuses"] if entry["name"] == container)
    return list(status.get("allocatedResourcesStatus") or ())


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def extended_class_resource() -> str:
    """The implicit extended resource of the GPU class."""
    return f"deviceclass.resource.kubernetes.io/{GPU_CLASS}"
