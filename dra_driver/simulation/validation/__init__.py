"""Server-side rules of resource.k8s.io/v1: what a real API server refuses is refused, with the same path and reason.

The embedded API server runs these on every write. They are written from the server's side
(pkg/apis/resource/validation at Kubernetes 1.37) and share no code with the part that makes our slices, so they check
it. Objects of other resources are not judged here.
"""

from __future__ import annotations

from collections.abc import Mapping

from dra_driver.kube.interface import (
    DEVICE_CLASSES,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    Obj,
    Resource,
)
from dra_driver.simulation.validation import kinds, shapes
from dra_driver.simulation.validation.cause import Cause, Reason, invalid
from dra_driver.simulation.validation.claim_specs import (
    ExpressionCheck,
    validate_admin_access,
    validate_claim_spec,
    validate_class_spec,
)
from dra_driver.simulation.validation.claim_statuses import validate_status_update
from dra_driver.simulation.validation.defaults import apply_defaults
from dra_driver.simulation.validation.metadata import validate_identity, validate_labels, validate_metadata
from dra_driver.simulation.validation.reading import Fields, fields
from dra_driver.simulation.validation.resource_slices import validate_slice_changes, validate_slice_spec

__all__ = [
    "Cause",
    "ExpressionCheck",
    "Reason",
    "apply_defaults",
    "judge_new",
    "unknown_fields",
    "validate_create",
    "validate_update",
]

_SHAPES = {
    RESOURCE_SLICES: kinds.RESOURCE_SLICE,
    RESOURCE_CLAIMS: kinds.RESOURCE_CLAIM,
    RESOURCE_CLAIM_TEMPLATES: kinds.RESOURCE_CLAIM_TEMPLATE,
    DEVICE_CLASSES: kinds.DEVICE_CLASS,
}


def validate_create(
    resource: Resource,
    obj: Obj,
    *,
    namespace_labels: Mapping[str, str] | None = None,
    check_expression: ExpressionCheck | None = None,
) -> list[Cause]:
    """Why the server would refuse this new, defaulted object; empty when it would not.

    ``namespace_labels`` are those of the object's namespace: without the admin-access label, admin access is refused.
    ``check_expression`` compiles CEL selectors; without it only their size is judged.
    """
    shape = _SHAPES.get(resource)
    if shape is None:
        return []
    if mistyped := shapes.mismatches(shape, obj, ""):
        return mistyped
    return judge_new(resource, obj, namespace_labels=namespace_labels, check_expression=check_expression)


def judge_new(
    resource: Resource,
    obj: Obj,
    *,
    namespace_labels: Mapping[str, str] | None = None,
    check_expression: ExpressionCheck | None = None,
) -> list[Cause]:
    """As :func:`validate_create`, for an object whose fields are known to have the right types."""
    causes = validate_metadata(fields(obj, "metadata"), namespaced=resource.namespaced)
    spec = fields(obj, "spec")
    if resource == RESOURCE_SLICES:
        return causes + validate_slice_spec(spec)
    if resource == DEVICE_CLASSES:
        return causes + validate_class_spec(spec, check_expression)
    if resource == RESOURCE_CLAIM_TEMPLATES:
        causes += validate_labels(fields(spec, "metadata"), "spec.metadata")
        causes += validate_claim_spec(fields(spec, "spec"), "spec.spec", check_expression)
        return causes + validate_admin_access(fields(spec, "spec"), namespace_labels)
    causes += validate_claim_spec(spec, "spec", check_expression)
    return causes + validate_admin_access(spec, namespace_labels)


def validate_update(
    resource: Resource,
    new: Obj,
    old: Obj,
    *,
    subresource: str = "",
    namespace_labels: Mapping[str, str] | None = None,
    check_expression: ExpressionCheck | None = None,
) -> list[Cause]:
    """Why the server would refuse to replace ``old`` by ``new``. With subresource ``status`` only a claim's status is
    judged, otherwise only what is not status. Both are whole objects."""
    shape = _SHAPES.get(resource)
    if shape is None:
        return []
    if mistyped := shapes.mismatches(shape, new, ""):
        return mistyped
    causes = validate_identity(fields(new, "metadata"), fields(old, "metadata"))
    if subresource == "status":
        return causes + validate_status_update(new, old, namespace_labels)
    spec, old_spec = fields(new, "spec"), fields(old, "spec")
    metadata = {**fields(old, "metadata"), **fields(new, "metadata")}
    causes += validate_metadata(metadata, namespaced=resource.namespaced)
    if resource == RESOURCE_SLICES:
        return causes + validate_slice_changes(spec, old_spec) + validate_slice_spec(spec)
    if resource == DEVICE_CLASSES:
        stored = shapes.same(kinds.DEVICE_CLASS.fields["spec"], spec, old_spec)
        return causes + validate_class_spec(spec, None if stored else check_expression)
    immutable = kinds.CLAIM_SPEC if resource == RESOURCE_CLAIMS else kinds.TEMPLATE_SPEC
    return causes + _unchanged(immutable, spec, old_spec)


def unknown_fields(resource: Resource, obj: Obj) -> list[str]:
    """Paths of fields that the server's type does not have; empty for resources that are not judged here."""
    shape = _SHAPES.get(resource)
    return list(shapes.unknown(shape, obj, "")) if shape else []


def _unchanged(shape: shapes.Shape, new: Fields, old: Fields) -> list[Cause]:
    return [] if shapes.same(shape, new, old) else [invalid("spec", new, "field is immutable")]
