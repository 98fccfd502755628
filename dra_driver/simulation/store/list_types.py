"""Which lists are merged item by item, and by which keys; every other list is replaced as a whole.

The keys are the ``listMapKey`` and ``patchMergeKey`` marks of the Kubernetes types (staging/src/k8s.io/api) for the
kinds that are served with some depth here, and ``x-kubernetes-list-map-keys`` of a CRD's schema for custom ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dra_driver.simulation.store.store import TypeKey

Path = tuple[str, ...]
SET: Path = ("$value",)
"""Stands for the keys of a list that is a set of plain values."""

_EVERYWHERE: dict[Path, Path] = {
    ("metadata", "ownerReferences"): ("uid",),
    ("metadata", "finalizers"): SET,
    ("status", "conditions"): ("type",),
}
_CONTAINER: dict[Path, Path] = {
    (): ("name",),
    ("env",): ("name",),
    ("ports",): ("containerPort", "protocol"),
    ("volumeMounts",): ("mountPath",),
    ("resources", "claims"): ("name",),
}
_POD: dict[Path, Path] = {
    **{("spec", "containers", *path): keys for path, keys in _CONTAINER.items()},
    **{("spec", "initContainers", *path): keys for path, keys in _CONTAINER.items()},
    ("spec", "volumes"): ("name",),
    ("spec", "resourceClaims"): ("name",),
    ("spec", "imagePullSecrets"): ("name",),
    ("status", "resourceClaimStatuses"): ("name",),
}
_BY_KIND: dict[TypeKey, dict[Path, Path]] = {
    ("", "pods"): _POD,
    ("", "nodes"): {("status", "addresses"): ("type",)},
    ("", "services"): {("spec", "ports"): ("port", "protocol")},
    ("resource.k8s.io", "resourceclaims"): {
        ("status", "devices"): ("driver", "device", "pool", "shareID"),
        ("status", "devices", "conditions"): ("type",),
        ("status", "reservedFor"): ("uid",),
    },
}


def list_keys(kind: TypeKey, schema: dict[str, Any] | None) -> Callable[[Path], Path]:
    """The keys of the list at a path of field names, for one resource; empty for an atomic list."""
    own = {**_EVERYWHERE, **_BY_KIND.get(kind, {})}

    def of(path: Path) -> Path:
        if path in own or schema is None:
            return own.get(path, ())
        return _from_schema(schema, path)

    return of


def _from_schema(schema: dict[str, Any], path: Path) -> Path:
    for name in path:
        schema = schema.get("items") or schema
        found = (schema.get("properties") or {}).get(name) or schema.get("additionalProperties")
        if not isinstance(found, dict):
            return ()
        schema = found
    match schema.get("x-kubernetes-list-type"):
        case "map":
            return tuple(schema.get("x-kubernetes-list-map-keys") or ())
        case "set":
            return SET
    return ()
