"""Metadata that the server sets, keeps or refuses (k8s.io/apiserver, pkg/registry/rest, create.go and update.go)."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime

from dra_driver.kube.interface import Obj, Resource
from dra_driver.kube.resources import Traits
from dra_driver.kube.statuses import bad_request, conflict, invalid, modified
from dra_driver.simulation.validation import cause

_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # no vowels and no look-alikes: k8s.io/apimachinery, pkg/util/rand
_SUFFIX_LENGTH = 5
_LONGEST_BASE = 63 - _SUFFIX_LENGTH
_SERVER_SET = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink")
_KEPT = ("deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink", "managedFields")
_FILLED = ("uid", "creationTimestamp")  # validation refuses other values


def timestamp(moment: datetime) -> str:
    """RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def generated_name(prefix: str) -> str:
    suffix = "".join(random.choices(_SUFFIX_ALPHABET, k=_SUFFIX_LENGTH))  # noqa: S311 - a name, not a secret
    return prefix[:_LONGEST_BASE] + suffix


def check_shape(resource: Resource, obj: Obj) -> None:
    """Refuse a body that is not an object of this resource."""
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata", {}), dict):
        raise bad_request("the object is not a JSON object with metadata")
    for field, expected in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        given = obj.get(field) or expected
        if given != expected:
            kind, version = obj.get("kind") or resource.kind, obj.get("apiVersion") or resource.version
            raise bad_request(
                f'{kind} in version "{version}" cannot be handled as a {resource.kind}: '
                f"{field} is {given}, not {expected}"
            )
    if resource.namespaced and not obj.get("metadata", {}).get("namespace"):
        raise bad_request("an empty namespace may not be set during creation")


def stamp_new(resource: Resource, traits: Traits, obj: Obj, now: datetime) -> None:
    """Set what the server sets on a new object; ``obj`` is changed. Its name is set already."""
    metadata = obj["metadata"]
    for field in _SERVER_SET:
        metadata.pop(field, None)
    if not resource.namespaced:
        metadata.pop("namespace", None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = timestamp(now)
    if traits.counts_generation:
        metadata["generation"] = 1


def check_update(resource: Resource, old: Obj, new: Obj) -> None:
    """Optimistic locking and the uid precondition of a body that carries a uid."""
    name, given, current = old["metadata"]["name"], new["metadata"], old["metadata"]
    if given.get("uid") and given["uid"] != current["uid"]:
        raise conflict(
            resource,
            name,
            f"StorageError: invalid object, Code: 4, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: "
            f"UID in precondition: {given['uid']}, UID in object meta: {current['uid']}",
        )
    if given.get("resourceVersion") and given["resourceVersion"] != current["resourceVersion"]:
        raise modified(resource, name)


def carry_over(resource: Resource, old: Obj, new: Obj) -> None:
    """Put back into ``new`` what a client cannot change, and refuse finalizers added to an object on its way out."""
    given, current = new["metadata"], old["metadata"]
    for field in _KEPT:
        if field in current:
            given[field] = current[field]
        else:
            given.pop(field, None)
    for field in _FILLED:
        given[field] = given.get(field) or current[field]
    given["resourceVersion"] = current["resourceVersion"]
    added = set(given.get("finalizers") or []) - set(current.get("finalizers") or [])
    if "deletionTimestamp" in current and added:
        why = "no new finalizers can be added if the object is being deleted, found new finalizers"
        raise invalid(resource, current["name"], [cause.forbidden("metadata.finalizers", f"{why} {sorted(added)}")])


def count_generation(traits: Traits, resource: Resource, old: Obj, new: Obj) -> None:
    """Bump ``metadata.generation`` when anything but metadata and a separate status changed; ``new`` is changed."""
    if not traits.counts_generation:
        return
    ignored = {"metadata", "status"} if resource.has_status else {"metadata"}
    if {k: v for k, v in old.items() if k not in ignored} != {k: v for k, v in new.items() if k not in ignored}:
        new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
