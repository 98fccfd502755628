"""Writes: from the body of a request to the stored object, in the order of the real server's strategies.

Decode, drop fields of disabled features, defaults, metadata, separation of status, validation, then storage; an update
that changes nothing writes nothing. Relies on the store's lock being held. ``obj`` arguments belong to the writer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from dra_driver.kube.interface import (
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    Invalid,
    Obj,
    PatchType,
    Resource,
    Unavailable,
)
from dra_driver.kube.statuses import already_exists, bad_request, forbidden, invalid, not_found
from dra_driver.simulation.store import applying, metadata, schema, wire
from dra_driver.simulation.store.checking import Checks
from dra_driver.simulation.store.definitions import established
from dra_driver.simulation.store.features import drop_disabled
from dra_driver.simulation.store.list_types import list_keys
from dra_driver.simulation.store.ownership import Manager, Owners
from dra_driver.simulation.store.patching import PatchError, clone, json_patch, merge, strategic_merge
from dra_driver.simulation.store.registry import Registry, Served
from dra_driver.simulation.store.removal import Remover
from dra_driver.simulation.store.store import ObjectKey, Store, object_key
from dra_driver.simulation.validation import cause

_NAME_ATTEMPTS = 8
_PATCHED_ONLY_BY_MERGE = "strategic merge patch is only for built-in kinds; use a merge patch"


@dataclass(frozen=True, slots=True)
class Writer:
    store: Store
    registry: Registry
    remover: Remover
    now: Callable[[], datetime]
    checks: Checks
    disabled_features: frozenset[str]

    def create(self, served: Served, obj: Obj, *, dry_run: bool, owners: Owners | None = None) -> Obj:
        """``owners``: the field owners of an object that is created by an apply."""
        resource = served.resource
        given = obj.setdefault("metadata", {}) if isinstance(obj, dict) else {}
        metadata.check_shape(resource, obj)
        if given.pop("resourceVersion", None):
            raise Unavailable("resourceVersion should not be set on objects to be created", code=500)
        given.pop("managedFields", None)
        if resource.namespaced:
            self._check_namespace(resource, given)
        if not given.get("name") and given.get("generateName"):
            given["name"] = self._free_name(served, given)
        obj = self._decoded(served, obj, None)
        if resource.has_status and not served.traits.keeps_status_on_create:
            self._reset_status(served, obj)
        metadata.stamp_new(resource, served.traits, obj, self.now())
        self.checks.check_new(served, obj)
        if resource == CUSTOM_RESOURCE_DEFINITIONS:
            obj["status"] = established(obj, metadata.timestamp(self.now()))
        existing = self.store.find(served.kind, object_key(obj))
        if existing is not None:
            raise already_exists(resource, given["name"], leaving="deletionTimestamp" in existing["metadata"])
        if owners:
            applying.set_owners(obj, owners, metadata.timestamp(self.now()), None)
        if dry_run:
            return obj
        return self._stored(served, obj)

    def update(
        self,
        served: Served,
        old: Obj,
        new: Obj,
        *,
        subresource: str = "",
        manager: str = "",
        dry_run: bool,
        owners: Owners | None = None,
    ) -> Obj:
        """Replace ``old``; ``owners`` are the field owners after an apply, otherwise they follow from the change."""
        resource, name = served.resource, old["metadata"]["name"]
        metadata.check_shape(resource, new)
        metadata.check_update(resource, old, new)
        if served.traits.needs_version and not new["metadata"].get("resourceVersion"):
            wrong = cause.invalid("metadata.resourceVersion", 0, "must be specified for an update")
            raise invalid(resource, name, [wrong])
        return self._replace(served, old, new, subresource=subresource, manager=manager, dry_run=dry_run, owners=owners)

    def patch(
        self,
        served: Served,
        old: Obj,
        patch: Obj | list[Obj],
        patch_type: PatchType,
        *,
        manager: str,
        subresource: str,
        dry_run: bool,
    ) -> Obj:
        """A JSON, merge or strategic merge patch; it locks optimistically only when it sets a resourceVersion."""
        new = self._patched(served, old, patch, patch_type)
        if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
            raise bad_request("the patch leaves no object with metadata")
        for field in ("name", "namespace"):
            if new["metadata"].get(field) != old["metadata"].get(field):
                raise bad_request(
                    f"the {field} of the object ({new['metadata'].get(field)}) does not match the {field} on the URL "
                    f"({old['metadata'].get(field)})"
                )
        metadata.check_shape(served.resource, new)
        uid = new["metadata"].pop("uid", None)  # not a precondition here, but immutable
        metadata.check_update(served.resource, old, new)
        if uid:
            new["metadata"]["uid"] = uid
        return self._replace(served, old, new, subresource=subresource, manager=manager, dry_run=dry_run, owners=None)

    def apply(
        self,
        served: Served,
        key: ObjectKey,
        applied: Obj | list[Obj],
        *,
        manager: str,
        force: bool,
        subresource: str,
        dry_run: bool,
    ) -> Obj:
        resource = served.resource
        if not manager:
            raise Invalid(
                'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
                reason="Invalid",
            )
        if not isinstance(applied, dict):
            raise bad_request("an apply patch is an object")
        given = applied.setdefault("metadata", {})
        if given.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        namespace, name = key
        given["name"] = given.get("name") or name
        if given["name"] != name:
            raise bad_request(f"the name of the object ({given['name']}) does not match the name on the URL ({name})")
        if resource.namespaced:
            given["namespace"] = namespace
        live = self.store.find(served.kind, key)
        if live is None and subresource:
            raise not_found(resource, name)
        who = Manager(manager, "Apply", subresource)
        keys_of = list_keys(served.kind, served.schema)
        merged, owners = applying.apply(
            live, wire.shaped(resource, applied), who, keys_of, force=force, has_status=resource.has_status
        )
        if live is None:
            return self.create(served, merged, dry_run=dry_run, owners=owners)
        return self._replace(
            served, live, merged, subresource=subresource, manager=manager, dry_run=dry_run, owners=owners
        )

    def bind(self, served: Served, pod: Obj, node_name: str) -> None:
        condition = {
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": metadata.timestamp(self.now()),
        }
        status = pod.get("status") or {}
        others = [c for c in status.get("conditions") or [] if c.get("type") != "PodScheduled"]
        bound = {
            **pod,
            "metadata": dict(pod["metadata"]),
            "spec": {**pod["spec"], "nodeName": node_name},
            "status": {**status, "conditions": [*others, condition]},
        }
        metadata.count_generation(served.traits, served.resource, pod, bound)
        self.store.put(served.kind, bound)

    # -- steps --------------------------------------------------------------------------------------------------------

    def _replace(
        self,
        served: Served,
        old: Obj,
        new: Obj,
        *,
        subresource: str,
        manager: str,
        dry_run: bool,
        owners: Owners | None,
    ) -> Obj:
        resource = served.resource
        metadata.carry_over(resource, old, new)
        new = self._separated(served, old, self._decoded(served, new, old), subresource)
        metadata.count_generation(served.traits, resource, old, new)
        self.checks.check_change(served, old, new, subresource)
        keys_of = list_keys(served.kind, served.schema)
        if owners is None:
            owners = applying.follow_update(old, new, Manager(manager or "unknown", "Update", subresource), keys_of)
        if owners is not None:
            now = metadata.timestamp(self.now())
            applying.set_owners(new, owners, now, old["metadata"].get("managedFields"))
        if new == old:
            return old
        if dry_run:
            return new
        return self._stored(served, new)

    def _stored(self, served: Served, obj: Obj) -> Obj:
        stored = self.store.put(served.kind, obj)
        if served.resource == CUSTOM_RESOURCE_DEFINITIONS:
            self.registry.add(stored)
        return self.remover.after_write(served, stored)

    def _decoded(self, served: Served, obj: Obj, old: Obj | None) -> Obj:
        resource = served.resource
        obj["apiVersion"], obj["kind"] = resource.api_version, resource.kind
        obj = wire.decode(resource, obj)
        if served.schema is not None:
            obj = schema.prune(served.schema, obj)
            schema.set_defaults(served.schema, obj)
        drop_disabled(served.kind, self.disabled_features, obj, old)
        wire.set_defaults(resource, obj, self.now())
        return obj

    @staticmethod
    def _reset_status(served: Served, obj: Obj) -> None:
        status = wire.initial_status(served.resource)
        if status is None:
            obj.pop("status", None)
        else:
            obj["status"] = status

    @staticmethod
    def _separated(served: Served, old: Obj, new: Obj, subresource: str) -> Obj:
        """A main update keeps the old status, a status update keeps everything else."""
        if not served.resource.has_status:
            return new
        source, target = (new, dict(old)) if subresource == "status" else (old, new)
        if "status" in source:
            target["status"] = source["status"]
        else:
            target.pop("status", None)
        if subresource == "status":
            target["metadata"] = {**old["metadata"], "uid": new["metadata"]["uid"]}
        return target

    def _patched(self, served: Served, old: Obj, patch: Obj | list[Obj], patch_type: PatchType) -> object:
        try:
            if patch_type is PatchType.JSON:
                if not isinstance(patch, list):
                    raise bad_request("error decoding patch: a JSON patch is a list of operations")
                return json_patch(old, patch)
            if not isinstance(patch, dict):
                raise bad_request("error decoding patch: a merge patch is an object")
            if patch_type is PatchType.STRATEGIC:
                if served.traits.needs_version and served.schema is not None:
                    raise bad_request(_PATCHED_ONLY_BY_MERGE)
                return strategic_merge(clone(old), patch, list_keys(served.kind, served.schema))
            return merge(clone(old), patch)
        except PatchError as error:
            message = f"the server rejected our request due to an error in our request: {error}"
            raise Invalid(message, reason="Invalid") from error

    # -- checks -------------------------------------------------------------------------------------------------------

    def _check_namespace(self, resource: Resource, given: Obj) -> None:
        namespace = self.store.find(("", NAMESPACES.plural), ("", given["namespace"]))
        if namespace is None:
            raise not_found(NAMESPACES, given["namespace"])
        if "deletionTimestamp" in namespace["metadata"]:
            why = f"unable to create new content in namespace {given['namespace']} because it is being terminated"
            raise forbidden(resource, given.get("name") or "", why)

    def _free_name(self, served: Served, given: Obj) -> str:
        name = ""
        for _ in range(_NAME_ATTEMPTS):
            name = metadata.generated_name(given["generateName"])
            key = (given.get("namespace") or "") if served.resource.namespaced else "", name
            if self.store.find(served.kind, key) is None:
                break
        return name
