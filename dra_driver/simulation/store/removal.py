"""Deletion: preconditions, grace of pods, finalizers, namespaces with their content, and garbage collection.

Relies on the store's lock being held. Garbage collection is background deletion by ownerReference uid, as of the real
garbage collector (pkg/controller/garbagecollector); here it runs inside the write that makes an object an orphan, so
that what a client sees does not depend on timing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from dra_driver.kube.interface import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS, Conflict, Obj, Preconditions
from dra_driver.kube.resources import qualified_kind
from dra_driver.kube.statuses import forbidden
from dra_driver.simulation.store.metadata import timestamp
from dra_driver.simulation.store.patching import clone
from dra_driver.simulation.store.registry import Registry, Served
from dra_driver.simulation.store.store import Store, object_key

PROTECTED_NAMESPACES = frozenset({"default", "kube-system", "kube-public"})
_FINISHED_PHASES = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class Remover:
    store: Store
    registry: Registry
    now: Callable[[], datetime]

    def delete(
        self, served: Served, obj: Obj, preconditions: Preconditions | None, grace_period_seconds: int | None
    ) -> Obj:
        """Delete, or mark as being deleted; the answer is the object's last or present state."""
        _check_preconditions(served, obj, preconditions)
        name = obj["metadata"]["name"]
        if served.resource == NAMESPACES:
            if name in PROTECTED_NAMESPACES:
                raise forbidden(served.resource, name, "this namespace may not be deleted")
            return self._end_namespace(served, obj)
        grace = _grace(served, obj, grace_period_seconds)
        if grace == 0 and not obj["metadata"].get("finalizers"):
            return self.remove(served, obj)
        return self._mark(served, obj, grace)

    def remove(self, served: Served, obj: Obj) -> Obj:
        """Remove now, whatever protects it, then what depended on it."""
        last = self.store.remove(served.kind, object_key(obj))
        if served.resource == CUSTOM_RESOURCE_DEFINITIONS:
            self._end_resource(obj)
        self._collect_dependants(obj["metadata"]["uid"])
        if served.resource.namespaced:
            self._finish_namespace(obj["metadata"]["namespace"])
        return last

    def after_write(self, served: Served, obj: Obj) -> Obj:
        """What follows from a stored update: the last finalizer gone, or every owner gone."""
        metadata = obj["metadata"]
        leaving = "deletionTimestamp" in metadata and not metadata.get("deletionGracePeriodSeconds")
        if leaving and not metadata.get("finalizers") and served.resource != NAMESPACES:
            return self.remove(served, obj)
        if self._is_orphan(obj) and not leaving:
            return self.delete(served, obj, None, None)
        return obj

    def _mark(self, served: Served, obj: Obj, grace: int) -> Obj:
        metadata = obj["metadata"]
        old_grace = metadata.get("deletionGracePeriodSeconds")
        if "deletionTimestamp" in metadata and old_grace is not None and grace >= old_grace:
            return obj
        marked: Obj = clone(obj)
        marked["metadata"]["deletionTimestamp"] = timestamp(self.now() + timedelta(seconds=grace))
        marked["metadata"]["deletionGracePeriodSeconds"] = grace
        if "generation" in metadata and "deletionTimestamp" not in metadata:
            marked["metadata"]["generation"] += 1
        return self.store.put(served.kind, marked)

    def _is_orphan(self, obj: Obj) -> bool:
        owners = obj["metadata"].get("ownerReferences") or []
        return bool(owners) and not any(self.store.has_uid(owner["uid"]) for owner in owners)

    def _collect_dependants(self, uid: str) -> None:
        for kind, obj in self.store.dependants(uid):
            current = self.store.find(kind, object_key(obj))
            if current is not None and self._is_orphan(current) and "deletionTimestamp" not in current["metadata"]:
                self.delete(self.registry.by_key(kind), current, None, None)

    def _end_resource(self, definition: Obj) -> None:
        spec = definition["spec"]
        kind = spec["group"], spec["names"]["plural"]
        for obj in self.store.select(kind, None):
            self.delete(self.registry.by_key(kind), obj, None, None)
        self.registry.drop(definition)

    def _end_namespace(self, served: Served, namespace: Obj) -> Obj:
        marked = namespace
        if "deletionTimestamp" not in namespace["metadata"]:
            marked = clone(namespace)
            marked["metadata"]["deletionTimestamp"] = timestamp(self.now())
            marked.setdefault("status", {})["phase"] = "Terminating"
            marked = self.store.put(served.kind, marked)
            for kind, obj in list(self.store.kinds_in(namespace["metadata"]["name"])):
                if self.store.find(kind, object_key(obj)) is not None:
                    self.delete(self.registry.by_key(kind), obj, None, None)
        self._finish_namespace(namespace["metadata"]["name"])
        return marked

    def _finish_namespace(self, name: str) -> None:
        """Remove a namespace that is being deleted once nothing is in it any more."""
        served = self.registry.resolve(NAMESPACES)
        namespace = self.store.find(served.kind, ("", name))
        if namespace is None or "deletionTimestamp" not in namespace["metadata"]:
            return
        if next(self.store.kinds_in(name), None) is None and not namespace["metadata"].get("finalizers"):
            self.remove(served, namespace)


def _check_preconditions(served: Served, obj: Obj, preconditions: Preconditions | None) -> None:
    if preconditions is None:
        return
    name, metadata = obj["metadata"]["name"], obj["metadata"]
    wanted, held = preconditions.uid, metadata["uid"]
    field, hint = "UID", "deleted and then recreated"
    if not wanted or wanted == held:
        wanted, held = preconditions.resource_version, metadata["resourceVersion"]
        field, hint = "ResourceVersion", "modified"
        if not wanted or wanted == held:
            return
    raise Conflict(
        f'Operation cannot be fulfilled on {qualified_kind(served.resource)} "{name}": the {field} in the precondition '
        f"({wanted}) does not match the {field} in record ({held}). The object might have been {hint}",
        reason="Conflict",
        details={"name": name, "kind": served.resource.kind, "group": served.resource.group},
    )


def _grace(served: Served, obj: Obj, asked: int | None) -> int:
    """Seconds a pod may still run (pkg/registry/core/pod, CheckGracefulDelete); 0 for everything else."""
    if served.resource != PODS:
        return 0
    spec = obj.get("spec") or {}
    grace = spec.get("terminationGracePeriodSeconds", 30) if asked is None else asked
    if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in _FINISHED_PHASES:
        return 0
    return int(grace) if grace >= 0 else 1
