"""Which resources the embedded API serves: the built-in ones, our own, and those a CustomResourceDefinition adds.

Our own kinds are served from the start, without a schema, so that a test needs no CRD; creating their CRD adds its
pruning and validation, deleting it takes the resource away as on a real server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dra_driver.kube.interface import Obj, Resource
from dra_driver.kube.resources import BUILT_IN, OWN, Traits, traits
from dra_driver.kube.statuses import unknown_resource
from dra_driver.simulation.store.store import TypeKey, type_key


@dataclass(frozen=True, slots=True)
class Served:
    """One resource as it is served. ``schema`` is the openAPIV3Schema of its CRD, if it has one."""

    resource: Resource
    traits: Traits
    schema: dict[str, Any] | None = field(default=None, hash=False)

    @property
    def kind(self) -> TypeKey:
        return type_key(self.resource)


class Registry:
    """Not locked: the caller holds the store's lock."""

    def __init__(self) -> None:
        self._served = {type_key(r): Served(r, traits(r)) for r in (*BUILT_IN, *OWN)}

    def resolve(self, resource: Resource) -> Served:
        """Raises NotFound, as for any path the server does not know, when group, version or plural are not served."""
        served = self._served.get(type_key(resource))
        if served is None or served.resource.version != resource.version:
            raise unknown_resource()
        return served

    def by_key(self, kind: TypeKey) -> Served:
        return self._served[kind]

    def find(self, group: str, version: str, plural: str) -> Resource:
        """The resource at a REST path; raises NotFound."""
        served = self._served.get((group, plural))
        if served is None or served.resource.version != version:
            raise unknown_resource()
        return served.resource

    def all(self) -> list[Resource]:
        return [served.resource for served in self._served.values()]

    def add(self, definition: Obj) -> None:
        """Serve the storage version of a CustomResourceDefinition."""
        spec = definition["spec"]
        version = storage_version(spec)
        names = spec["names"]
        resource = Resource(
            spec["group"],
            version["name"],
            names["plural"],
            names["kind"],
            namespaced=spec["scope"] == "Namespaced",
            has_status="status" in (version.get("subresources") or {}),
        )
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        self._served[type_key(resource)] = Served(resource, traits(resource), schema)

    def drop(self, definition: Obj) -> None:
        spec = definition["spec"]
        self._served.pop((spec["group"], spec["names"]["plural"]), None)


def storage_version(spec: Obj) -> Obj:
    """The version of a CustomResourceDefinition that is stored, the only one served here."""
    versions: list[Obj] = spec["versions"]
    return next((version for version in versions if version.get("storage")), versions[0])
