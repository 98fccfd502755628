"""Small valid objects for the contract tests; each call gives a fresh one."""

from __future__ import annotations

from typing import Any

from dra_driver.kube.interface import Obj


def config_map(name: str, namespace: str, **data: str) -> Obj:
    return {"metadata": {"name": name, "namespace": namespace}, "data": data}


def resource_slice(name: str, *, node: str, driver: str = "gpu.nvidia.com", devices: Any = None) -> Obj:
    return {
        "metadata": {"name": name},
        "spec": {
            "driver": driver,
            "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0", "attributes": {"uuid": {"string": "GPU-1"}}}] if devices is None else devices,
        },
    }


def claim(name: str, namespace: str, requests: Any = None) -> Obj:
    requests = requests or [{"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com"}}]
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"devices": {"requests": requests}}}


def allocation(node: str, device: str = "gpu-0", request: str = "gpu") -> Obj:
    result = {"request": request, "driver": "gpu.nvidia.com", "pool": node, "device": device}
    return {"devices": {"results": [result]}}


def pod(name: str, namespace: str) -> Obj:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "containers": [
                {"name": "main", "image": "example.com/cuda:1", "resources": {"limits": {"nvidia.com/gpu": 1}}}
            ]
        },
    }


def lease(name: str, namespace: str, holder: str) -> Obj:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"holderIdentity": holder}}
