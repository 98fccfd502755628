"""Pods, templates and nodes for scheduler and controller tests; devices come from tests.allocator.builders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dra_driver.kube.interface import (
    DEVICE_CLASSES,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_SLICES,
    Obj,
)
from dra_driver.simulation.store import EmbeddedApi
from tests.allocator.builders import device_class, gpu, resource_slice

NAMESPACE = "demo"


def node(name: str, *, ready: bool = True, labels: dict[str, str] | None = None, **spec: Any) -> Obj:
    status = "True" if ready else "False"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": status}]},
    }


def pod(name: str, *claims: Obj, container: Obj | None = None, **spec: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "containers": [{"name": "main", "image": "busybox", **(container or {})}],
            "resourceClaims": list(claims),
            **spec,
        },
    }


def by_template(entry: str = "gpu", template: str = "single") -> Obj:
    return {"name": entry, "resourceClaimTemplateName": template}


def by_name(claim_name: str, entry: str = "gpu") -> Obj:
    return {"name": entry, "resourceClaimName": claim_name}


def template(name: str, *requests: Obj, metadata: Obj | None = None) -> Obj:
    spec: Obj = {"spec": {"devices": {"requests": list(requests)}}}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {**spec, **({"metadata": metadata} if metadata else {})},
    }


def cluster(
    *templates: Obj,
    gpus: int = 2,
    nodes: tuple[str, ...] = ("n0", "n1"),
    device: Callable[[int], Obj] = gpu,
    api: EmbeddedApi | None = None,
    **class_spec: Any,
) -> EmbeddedApi:
    """An API with ready nodes of ``gpus`` GPUs each, the class gpu.nvidia.com and the namespace demo; ``device`` makes
    the GPU of an index."""
    api = api or EmbeddedApi()
    api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for name in nodes:
        created = api.create(NODES, node(name))
        api.update(NODES, {**created, "status": node(name)["status"]}, subresource="status")
        api.create(RESOURCE_SLICES, resource_slice(name, [device(number) for number in range(gpus)]))
    api.create(DEVICE_CLASSES, device_class(**class_spec))
    for entry in templates:
        api.create(RESOURCE_CLAIM_TEMPLATES, entry)
    return api


def get_pod(api: EmbeddedApi, name: str) -> Obj:
    return api.get(PODS, name, NAMESPACE)


def condition(pod_object: Obj, kind: str) -> Obj:
    found: Obj = next(entry for entry in pod_object["status"]["conditions"] if entry["type"] == kind)
    return found


def finish(api: EmbeddedApi, name: str, phase: str = "Succeeded") -> None:
    api.patch(PODS, name, {"status": {"phase": phase}}, NAMESPACE, subresource="status")
