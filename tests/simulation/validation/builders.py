"""Valid objects to spoil, and the reading of causes."""

from __future__ import annotations

import copy
from typing import Any

from dra_driver.simulation.validation import Cause

Obj = dict[str, Any]

SLICE: Obj = {
    "apiVersion": "resource.k8s.io/v1",
    "kind": "ResourceSlice",
    "metadata": {
        "name": "00000-gpu.nvidia.com-node-0-abcde",
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "node-0", "uid": "u", "controller": True}],
    },
    "spec": {
        "driver": "gpu.nvidia.com",
        "pool": {"name": "node-0", "generation": 1, "resourceSliceCount": 1},
        "nodeName": "node-0",
        "devices": [
            {
                "name": "gpu-0",
                "attributes": {
                    "type": {"string": "gpu"},
                    "driverVersion": {"version": "580.105.8"},
                    "resource.kubernetes.io/numaNode": {"int": 0},
                },
                "capacity": {"memory": {"value": "80Gi"}},
            }
        ],
    },
}

CLAIM: Obj = {
    "apiVersion": "resource.k8s.io/v1",
    "kind": "ResourceClaim",
    "metadata": {"name": "claim", "namespace": "default", "uid": "claim-uid"},
    "spec": {
        "devices": {
            "requests": [
                {
                    "name": "gpu",
                    "exactly": {"deviceClassName": "gpu.nvidia.com", "allocationMode": "ExactCount", "count": 1},
                },
                {
                    "name": "any",
                    "firstAvailable": [
                        {"name": "big", "deviceClassName": "gpu.nvidia.com", "allocationMode": "All"},
                        {
                            "name": "small",
                            "deviceClassName": "mig.nvidia.com",
                            "allocationMode": "ExactCount",
                            "count": 2,
                            "selectors": [{"cel": {"expression": "true"}}],
                            "tolerations": [{"operator": "Exists"}],
                        },
                    ],
                },
            ],
            "constraints": [{"requests": ["gpu", "any/small"], "matchAttribute": "resource.kubernetes.io/pcieRoot"}],
            "config": [
                {
                    "requests": ["gpu", "any"],
                    "opaque": {"driver": "gpu.nvidia.com", "parameters": {"kind": "GpuConfig"}},
                }
            ],
        }
    },
}

ALLOCATION: Obj = {
    "devices": {
        "results": [
            {"request": "gpu", "driver": "gpu.nvidia.com", "pool": "node-0", "device": "gpu-0"},
            {
                "request": "any/small",
                "driver": "gpu.nvidia.com",
                "pool": "node-0",
                "device": "gpu-1",
                "shareID": "a6f2f1e3-0a1b-4c3d-8e9f-001122334455",
                "consumedCapacity": {"memory": "10Gi"},
            },
        ],
        "config": [
            {"source": "FromClass", "opaque": {"driver": "gpu.nvidia.com", "parameters": {}}},
            {"source": "FromClaim", "requests": ["gpu"], "opaque": {"driver": "gpu.nvidia.com", "parameters": {}}},
        ],
    },
    "nodeSelector": {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-0"]}]}]
    },
    "allocationTimestamp": "2026-11-23T08:03:30Z",
}

CLASS: Obj = {
    "apiVersion": "resource.k8s.io/v1",
    "kind": "DeviceClass",
    "metadata": {"name": "gpu.nvidia.com"},
    "spec": {
        "selectors": [{"cel": {"expression": "device.driver == 'gpu.nvidia.com'"}}],
        "config": [{"opaque": {"driver": "gpu.nvidia.com", "parameters": {"kind": "GpuConfig"}}}],
        "extendedResourceName": "nvidia.com/gpu",
    },
}


def template() -> Obj:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "template", "namespace": "default"},
        "spec": {"metadata": {"labels": {"app": "x"}}, "spec": copy.deepcopy(CLAIM["spec"])},
    }


def allocated() -> Obj:
    claim = copy.deepcopy(CLAIM)
    claim["status"] = {
        "allocation": copy.deepcopy(ALLOCATION),
        "reservedFor": [{"resource": "pods", "name": "pod", "uid": "pod-uid"}],
    }
    return claim


def put(obj: Obj, path: str, value: Any) -> Obj:
    """A copy of ``obj`` with ``value`` at a path such as ``spec.devices.0.name``; DELETE removes the field.

    Dots inside a key are written as ``~``.
    """
    spoiled = copy.deepcopy(obj)
    *parents, last = [part.replace("~", ".") for part in path.split(".")]
    holder: Any = spoiled
    for part in parents:
        holder = holder[int(part)] if isinstance(holder, list) else holder.setdefault(part, {})
    if value is DELETE:
        del holder[last]
    elif isinstance(holder, list):
        holder[int(last)] = value
    else:
        holder[last] = value
    return spoiled


DELETE = object()


def seen(causes: list[Cause]) -> set[tuple[str, str]]:
    """Causes as (field, reason without its "FieldValue")."""
    return {(cause.field, cause.reason.removeprefix("FieldValue")) for cause in causes}
