"""Rules of ObjectMeta (pkg/api/validation/objectmeta.go in apimachinery): names, labels, owners, immutable identity."""

from __future__ import annotations

from dra_driver.simulation.validation import names
from dra_driver.simulation.validation.cause import Cause, forbidden, invalid, required
from dra_driver.simulation.validation.reading import Fields, fields, items, strings, text

_IMMUTABLE = ("name", "namespace", "uid", "creationTimestamp")
_OWNER_FIELDS = ("apiVersion", "kind", "name", "uid")


def validate_metadata(metadata: Fields, *, namespaced: bool) -> list[Cause]:
    causes = names.object_name("metadata", text(metadata, "name"), text(metadata, "generateName"))
    namespace = text(metadata, "namespace")
    if namespaced and not namespace:
        causes.append(required("metadata.namespace"))
    elif namespaced:
        causes += names.dns_label("metadata.namespace", namespace)
    elif namespace:
        causes.append(forbidden("metadata.namespace", "not allowed on this type"))
    causes += validate_labels(metadata, "metadata")
    causes += _owners(metadata)
    for index, finalizer in enumerate(strings(metadata, "finalizers")):
        causes += names.label_key(f"metadata.finalizers[{index}]", finalizer or "")
    return causes


def validate_labels(metadata: Fields, path: str) -> list[Cause]:
    """Labels and annotations; also those of a template's ``spec.metadata``."""
    causes: list[Cause] = []
    for key, value in fields(metadata, "labels").items():
        causes += names.label_key(f"{path}.labels", key) + names.label_value(f"{path}.labels", value or "")
    for key in fields(metadata, "annotations"):
        causes += names.label_key(f"{path}.annotations", key.lower())
    return causes


def validate_identity(new: Fields, old: Fields) -> list[Cause]:
    """An update may leave these fields out (the server fills them in) but not change them."""
    return [
        invalid(f"metadata.{name}", new[name], "field is immutable")
        for name in _IMMUTABLE
        if new.get(name) and new[name] != old.get(name)
    ]


def _owners(metadata: Fields) -> list[Cause]:
    causes: list[Cause] = []
    owners = items(metadata, "ownerReferences")
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        causes += [required(f"{path}.{name}", "must not be empty") for name in _OWNER_FIELDS if not owner.get(name)]
    if sum(bool(owner.get("controller")) for owner in owners) > 1:
        causes.append(invalid("metadata.ownerReferences", owners, "only one reference can have controller set to true"))
    return causes
