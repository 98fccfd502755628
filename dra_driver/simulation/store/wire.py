"""What the server makes of a body before any rule is applied: decoding, defaults and canonical form.

Unknown fields and empty values go, quantities become canonical (where they do there), defaults appear: what is stored
here is what the real server would echo (pkg/apis/resource/v1/defaults.go and pkg/apis/core/v1/defaults.go). The DRA
kinds are followed exactly; of pods only what scheduling, the kubelet and our reconcilers look at; other kinds stay as
they are.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from dra_driver.kube.interface import PODS, Obj, Resource
from dra_driver.kube.statuses import bad_request
from dra_driver.simulation.store.metadata import timestamp
from dra_driver.simulation.store.quantities import served
from dra_driver.simulation.store.store import TypeKey
from dra_driver.simulation.validation import apply_defaults, kinds
from dra_driver.simulation.validation.shapes import ListOf, MapOf, Scalar, Shape, Struct, mismatches

_SHAPES: dict[TypeKey, Struct] = {
    ("resource.k8s.io", "resourceslices"): kinds.RESOURCE_SLICE,
    ("resource.k8s.io", "resourceclaims"): kinds.RESOURCE_CLAIM,
    ("resource.k8s.io", "resourceclaimtemplates"): kinds.RESOURCE_CLAIM_TEMPLATE,
    ("resource.k8s.io", "deviceclasses"): kinds.DEVICE_CLASS,
}


def decode(resource: Resource, obj: Obj) -> Obj:
    """The object as the server's types hold it; raises BadRequest for a value of the wrong type."""
    shape = _SHAPES.get((resource.group, resource.plural))
    if shape is None:
        return obj
    if mistyped := mismatches(shape, obj, ""):
        wrong = mistyped[0]
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
            f"{wrong.field}: {wrong.message}"
        )
    decoded: Obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": obj["metadata"]}
    for part in ("spec", "status"):
        field = shape.fields.get(part)
        if field is not None:
            value = _normal(field, obj.get(part))
            decoded[part] = {} if value is None else value
    return decoded


def shaped(resource: Resource, part: Obj) -> Obj:
    """Part of an object, as an apply sends it, in canonical form, so that equal values are no conflict."""
    if resource == PODS:
        for resources in _container_resources(part.get("spec") or {}):
            _canonical_resources(resources)
    if (resource.group, resource.plural) not in _SHAPES:
        return part
    decoded = decode(resource, {"metadata": {}, **part})
    return {key: value for key, value in decoded.items() if key in part}


def _normal(shape: Shape, value: Any) -> Any:
    """None for what the server leaves out when it writes the object: null, and empty lists and maps."""
    if value is None:
        return None
    if isinstance(shape, Scalar):
        return served(value) if shape is Scalar.QUANTITY else value
    if isinstance(shape, ListOf):
        return [_item(shape.item, item) for item in value] or None
    if isinstance(shape, MapOf):
        return {key: _item(shape.value, item) for key, item in value.items()} or None
    decoded = {}
    for name, field in shape.fields.items():
        if (item := _normal(field, value.get(name))) is not None:
            decoded[name] = item
    return decoded


def _item(shape: Shape, value: Any) -> Any:
    """An item of a list or map stays, even when nothing is in it; a quantity that is null is 0."""
    normal = _normal(shape, 0 if value is None and shape is Scalar.QUANTITY else value)
    return {} if normal is None and not isinstance(shape, Scalar) else normal


def set_defaults(resource: Resource, obj: Obj, now: datetime) -> None:
    """Fill in defaults; ``obj`` is changed."""
    apply_defaults(resource, obj, now=timestamp(now))
    match resource.group, resource.plural:
        case ("", "pods"):
            _pod_defaults(obj)
        case ("", "nodes"):
            obj.setdefault("spec", {})
            status = obj.setdefault("status", {})
            if "capacity" in status:
                status.setdefault("allocatable", dict(status["capacity"]))


def _pod_defaults(pod: Obj) -> None:
    spec = pod.setdefault("spec", {})
    for key, value in (
        ("restartPolicy", "Always"),
        ("terminationGracePeriodSeconds", 30),
        ("schedulerName", "default-scheduler"),
        ("dnsPolicy", "ClusterFirst"),
    ):
        spec.setdefault(key, value)
    for resources in _container_resources(spec):
        _canonical_resources(resources)
        if resources.get("limits"):
            resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}


def _container_resources(spec: Obj) -> list[Obj]:
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    return [container.setdefault("resources", {}) for container in containers]


def _canonical_resources(resources: Obj) -> None:
    for part in ("limits", "requests"):
        if part in resources:
            resources[part] = {name: _canonical(value) for name, value in (resources[part] or {}).items()}


def _canonical(value: Any) -> Any:
    try:
        return served(value)
    except ValueError as error:
        raise bad_request(f'Pod in version "v1" cannot be handled as a Pod: {error}') from error


def initial_status(resource: Resource) -> Obj | None:
    """The status of a new object whose status a client cannot set when it creates it; None for no status at all."""
    match resource.group, resource.plural:
        case ("", "pods"):
            return {"phase": "Pending", "qosClass": "BestEffort"}
        case ("", "namespaces"):
            return {"phase": "Active"}
        case ("resource.k8s.io", "resourceclaims") | ("", "services"):
            return {}
    return None
