"""Which rules judge an object: the DRA rules, a CRD's schema, or what little is checked of other kinds.

Relies on the store's lock being held. Every violated rule of an object goes into one Invalid.
"""

from __future__ import annotations

from dataclasses import dataclass

from dra_driver.kube.interface import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS, Obj, Resource
from dra_driver.kube.resources import DEVICE_TAINT_RULES
from dra_driver.kube.statuses import invalid
from dra_driver.simulation.store import schema
from dra_driver.simulation.store.definitions import check_definition
from dra_driver.simulation.store.registry import Served
from dra_driver.simulation.store.store import Store
from dra_driver.simulation.validation import ExpressionCheck, cause, judge_new, validate_update
from dra_driver.simulation.validation.cause import Cause
from dra_driver.simulation.validation.metadata import validate_identity, validate_metadata


@dataclass(frozen=True, slots=True)
class Checks:
    """``expression`` compiles CEL selectors; without it only their size is judged."""

    store: Store
    expression: ExpressionCheck | None

    def check_new(self, served: Served, obj: Obj) -> None:
        """``obj`` was decoded, which looks at the types of its fields. Raises Invalid."""
        resource = served.resource
        if _has_rules(resource):
            labels = self._namespace_labels(obj)
            causes = judge_new(resource, obj, namespace_labels=labels, check_expression=self.expression)
        else:
            causes = validate_metadata(obj["metadata"], namespaced=resource.namespaced) + _content(served, obj)
            if resource == PODS and not obj["spec"].get("containers"):
                causes.append(cause.required("spec.containers"))
        _refuse(resource, obj, causes)

    def check_change(self, served: Served, old: Obj, new: Obj, subresource: str) -> None:
        """Raises Invalid."""
        resource = served.resource
        if _has_rules(resource):
            causes = validate_update(
                resource,
                new,
                old,
                subresource=subresource,
                namespace_labels=self._namespace_labels(new),
                check_expression=self.expression,
            )
        else:
            causes = validate_identity(new["metadata"], old["metadata"]) + _content(served, new)
            if resource == PODS and old["spec"].get("nodeName") not in (None, "", new["spec"].get("nodeName")):
                causes.append(cause.forbidden("spec", "pod updates may not change spec.nodeName; a pod is bound once"))
        _refuse(resource, new, causes)

    def _namespace_labels(self, obj: Obj) -> dict[str, str] | None:
        name = obj["metadata"].get("namespace")
        namespace = self.store.find(("", NAMESPACES.plural), ("", name)) if name else None
        return (namespace["metadata"].get("labels") or {}) if namespace else None


def _has_rules(resource: Resource) -> bool:
    return resource.group == "resource.k8s.io" and resource != DEVICE_TAINT_RULES


def _content(served: Served, obj: Obj) -> list[Cause]:
    causes: list[Cause] = []
    if served.schema is not None:
        causes += schema.violations(served.schema, obj)
    if served.resource == CUSTOM_RESOURCE_DEFINITIONS:
        causes += check_definition(obj)
    return causes


def _refuse(resource: Resource, obj: Obj, causes: list[Cause]) -> None:
    if causes:
        raise invalid(resource, obj["metadata"].get("name") or "", causes)
