"""What the API server fills in when it decodes resource.k8s.io/v1 objects (pkg/apis/resource/v1/defaults.go)."""

from __future__ import annotations

from dra_driver.kube.interface import (
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    Obj,
    Resource,
)
from dra_driver.simulation.validation.reading import Fields, fields, items


def apply_defaults(resource: Resource, obj: Obj, *, now: str) -> None:
    """Fill in the server's defaults in place; ``now`` is an RFC 3339 time in seconds, for a taint's ``timeAdded``.

    Kinds without defaults, and parts of the wrong type (which validation then names), are left as they are.
    """
    if resource == RESOURCE_SLICES:
        for device in _objects(_object(obj, "spec"), "devices"):
            for taint in _objects(device, "taints"):
                if taint.get("timeAdded") is None:
                    taint["timeAdded"] = now
    elif resource == RESOURCE_CLAIMS:
        _claim_spec(_object(obj, "spec"))
        allocation = _object(_object(obj, "status"), "allocation")
        for result in _objects(_object(allocation, "devices"), "results"):
            _tolerations(result)
    elif resource == RESOURCE_CLAIM_TEMPLATES:
        _claim_spec(_object(_object(obj, "spec"), "spec"))


def _claim_spec(spec: Fields) -> None:
    for request in _objects(_object(spec, "devices"), "requests"):
        demands = _objects(request, "firstAvailable")
        if isinstance(request.get("exactly"), dict):
            demands.append(request["exactly"])
        for demand in demands:
            demand["allocationMode"] = demand.get("allocationMode") or "ExactCount"
            if demand["allocationMode"] == "ExactCount" and not demand.get("count"):
                demand["count"] = 1
            _tolerations(demand)


def _tolerations(holder: Fields) -> None:
    for toleration in _objects(holder, "tolerations"):
        toleration["operator"] = toleration.get("operator") or "Equal"


def _object(holder: Fields, name: str) -> Fields:
    return fields(holder, name) if isinstance(holder.get(name), dict) else {}


def _objects(holder: Fields, name: str) -> list[Fields]:
    found = items(holder, name) if isinstance(holder.get(name), list) else []
    return [item for item in found if isinstance(item, dict)]
