"""Documents by which clients find out what a server serves: health, version, groups, resources, a little OpenAPI.

Enough for kubectl get, apply, delete and wait. The OpenAPI documents carry no schemas: they only say that writes take
``fieldValidation``, without which kubectl refuses to apply.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from dra_driver.kube.interface import Obj, Resource
from dra_driver.kube.resources import collection_path
from dra_driver.simulation.store import EmbeddedApi
from dra_driver.version import __version__

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_SHORT_NAMES = {
    "pods": ["po"],
    "nodes": ["no"],
    "namespaces": ["ns"],
    "configmaps": ["cm"],
    "events": ["ev"],
    "services": ["svc"],
    "serviceaccounts": ["sa"],
    "customresourcedefinitions": ["crd", "crds"],
    "daemonsets": ["ds"],
    "deployments": ["deploy"],
}


def document(api: EmbeddedApi, path: str) -> Any:
    """The document at a path, or None when the path is not one of these."""
    parts = path.strip("/").split("/")
    match parts:
        case ["healthz" | "readyz" | "livez"]:
            return "ok"
        case ["version"]:
            return {"major": "1", "minor": "37", "gitVersion": f"v1.37.0+gpu-dra-{__version__}", "platform": "embedded"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            groups = [_group(name, versions) for name, versions in _groups(api).items() if name]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["api", version]:
            return _resources(api, "", version)
        case ["apis", group]:
            versions = _groups(api).get(group)
            return None if versions is None else {"apiVersion": "v1", **_group(group, versions)}
        case ["apis", group, version]:
            return _resources(api, group, version)
        case ["openapi", "v3"]:
            roots = sorted({_root(resource) for resource in api.resources()})
            return {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in roots}}
        case ["openapi", "v3", *rest]:
            return _open_api(api, "/".join(rest))
    return None


def _groups(api: EmbeddedApi) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for resource in api.resources():
        if resource.version not in found[resource.group]:
            found[resource.group].append(resource.version)
    return found


def _group(name: str, versions: list[str]) -> Obj:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"kind": "APIGroup", "name": name, "versions": listed, "preferredVersion": listed[0]}


def _resources(api: EmbeddedApi, group: str, version: str) -> Obj | None:
    served = [r for r in api.resources() if (r.group, r.version) == (group, version)]
    if not served:
        return None
    listed: list[Obj] = []
    for resource in sorted(served, key=lambda r: r.plural):
        entry: Obj = {
            "name": resource.plural,
            "singularName": resource.kind.lower(),
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": _VERBS,
        }
        if resource.plural in _SHORT_NAMES:
            entry["shortNames"] = _SHORT_NAMES[resource.plural]
        listed.append(entry)
        if resource.has_status:
            status = {**entry, "name": f"{resource.plural}/status", "verbs": ["get", "patch", "update"]}
            listed.append({k: v for k, v in status.items() if k != "shortNames"})
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": served[0].api_version,
        "resources": listed,
    }


def _root(resource: Resource) -> str:
    return f"apis/{resource.api_version}" if resource.group else f"api/{resource.version}"


def _open_api(api: EmbeddedApi, root: str) -> Obj | None:
    served = [resource for resource in api.resources() if _root(resource) == root]
    if not served:
        return None
    return {
        "openapi": "3.0.0",
        "info": {"title": "gpu-dra embedded API server", "version": __version__},
        "paths": {f"{collection_path(resource, '{namespace}')}/{{name}}": _patch(resource) for resource in served},
        "components": {"schemas": {}},
    }


def _patch(resource: Resource) -> Obj:
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
        for name in ("dryRun", "fieldManager", "fieldValidation", "force")
    ]
    return {
        "patch": {
            "parameters": parameters,
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": {
                "group": resource.group,
                "version": resource.version,
                "kind": resource.kind,
            },
        }
    }
