"""Rules of a claim's spec and of a DeviceClass (pkg/apis/resource/validation): requests, constraints, configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from dra_driver.simulation.validation import limits, names
from dra_driver.simulation.validation.cause import (
    Cause,
    forbidden,
    invalid,
    not_supported,
    required,
    too_long,
    too_many,
)
from dra_driver.simulation.validation.reading import Fields, each, fields, items, strings, text
from dra_driver.simulation.validation.taints import validate_tolerations

ADMIN_ACCESS_LABEL = "resource.kubernetes.io/admin-access"

ExpressionCheck = Callable[[str], str | None]
"""Compiles a CEL expression; the answer is what is wrong with it, or None."""

_MODES = ("All", "ExactCount")


def validate_claim_spec(spec: Fields, path: str, check_expression: ExpressionCheck | None = None) -> list[Cause]:
    devices, path = fields(spec, "devices"), f"{path}.devices"
    known = request_names(spec)
    used = _constraint_attributes(items(devices, "constraints"))

    def request(item_path: str, item: Fields) -> list[Cause]:
        return _request(item, item_path, used, check_expression)

    def constraint(item_path: str, item: Fields) -> list[Cause]:
        return _constraint(item, item_path, known)

    def config(item_path: str, item: Fields) -> list[Cause]:
        return validate_request_references(item, item_path, known) + validate_opaque(item, item_path)

    causes = each(
        items(devices, "requests"),
        f"{path}.requests",
        limits.REQUESTS,
        request,
        key=lambda item: text(item, "name"),
    )
    causes += each(items(devices, "constraints"), f"{path}.constraints", limits.CONSTRAINTS, constraint)
    return causes + each(items(devices, "config"), f"{path}.config", limits.CONFIGS, config)


def validate_class_spec(spec: Fields, check_expression: ExpressionCheck | None = None) -> list[Cause]:
    causes = _selectors(spec, "spec", check_expression)
    causes += each(
        items(spec, "config"), "spec.config", limits.CONFIGS, lambda path, config: validate_opaque(config, path)
    )
    name = spec.get("extendedResourceName")
    if name is not None and not _is_extended_resource(name):
        causes.append(invalid("spec.extendedResourceName", name, "must be a valid extended resource name"))
    return causes


def validate_admin_access(spec: Fields, namespace_labels: Mapping[str, str] | None) -> list[Cause]:
    """KEP-5018: only namespaces with the label may ask for admin access. No labels known means no label."""
    if (namespace_labels or {}).get(ADMIN_ACCESS_LABEL) == "true":
        return []
    for index, request in enumerate(items(fields(spec, "devices"), "requests")):
        if fields(request, "exactly").get("adminAccess"):
            # The server leaves "exactly" out of this path (pkg/registry/resource, AuthorizedForAdmin).
            return [admin_access_forbidden(f"spec.devices.requests[{index}].adminAccess")]
    return []


def admin_access_forbidden(path: str) -> Cause:
    detail = f"admin access to devices requires the `{ADMIN_ACCESS_LABEL}: true` label on the containing namespace"
    return forbidden(path, detail)


def request_names(spec: Fields) -> frozenset[str]:
    """What ``requests`` lists may name: every request, and ``request/alternative`` of its alternatives."""
    known: set[str] = set()
    for request in items(fields(spec, "devices"), "requests"):
        name = text(request, "name")
        known.add(name)
        known.update(f"{name}/{text(alternative, 'name')}" for alternative in items(request, "firstAvailable"))
    return frozenset(known)


def validate_request_reference(path: str, name: str, known: frozenset[str]) -> list[Cause]:
    detail = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
    segments = name.split("/")
    if len(segments) > 2:
        return [invalid(path, name, detail)]
    causes = [cause for segment in segments for cause in names.dns_label(path, segment)]
    return causes if name in known else [*causes, invalid(path, name, detail)]


def validate_request_references(holder: Fields, path: str, known: frozenset[str]) -> list[Cause]:
    return each(
        strings(holder, "requests"),
        f"{path}.requests",
        limits.REQUESTS,
        lambda item_path, name: validate_request_reference(item_path, name or "", known),
        key=str,
    )


def validate_opaque(holder: Fields, path: str) -> list[Cause]:
    opaque = holder.get("opaque")
    if opaque is None:
        return [required(f"{path}.opaque")]
    causes = names.driver_name(f"{path}.opaque.driver", text(opaque, "driver"))
    return causes + validate_json_object(opaque.get("parameters"), f"{path}.opaque.parameters")


def validate_json_object(value: Any, path: str) -> list[Cause]:
    if value is None:
        return [required(path)]
    if not isinstance(value, dict):
        return [invalid(path, "<value omitted>", "must be a valid JSON object")]
    if len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()) > limits.OPAQUE_BYTES:
        return [too_long(path, limits.OPAQUE_BYTES)]
    return []


def _request(
    request: Fields, path: str, used: Mapping[str, set[str]], check_expression: ExpressionCheck | None
) -> list[Cause]:
    name = text(request, "name")
    causes = names.dns_label(f"{path}.name", name)
    alternatives, exactly = items(request, "firstAvailable"), request.get("exactly")
    one_of = "exactly one of `exactly` or `firstAvailable` is required"
    if alternatives and exactly is not None:
        return [*causes, invalid(path, None, f"{one_of}, but multiple fields are set")]
    if exactly is not None:
        return causes + _demand(exactly, f"{path}.exactly", {"", name}, used, check_expression)
    if not alternatives:
        return [*causes, required(path, one_of)]

    def alternative(item_path: str, item: Fields) -> list[Cause]:
        targets = {"", name, f"{name}/{text(item, 'name')}"}
        return names.dns_label(f"{item_path}.name", text(item, "name")) + _demand(
            item, item_path, targets, used, check_expression
        )

    return causes + each(
        alternatives,
        f"{path}.firstAvailable",
        limits.ALTERNATIVES,
        alternative,
        key=lambda item: text(item, "name"),
    )


def _demand(
    demand: Fields,
    path: str,
    targets: set[str],
    used: Mapping[str, set[str]],
    check_expression: ExpressionCheck | None,
) -> list[Cause]:
    """What ``exactly`` and each alternative ask for. ``targets``: the constraint targets that reach it."""
    class_name, mode, count = text(demand, "deviceClassName"), text(demand, "allocationMode"), demand.get("count") or 0
    causes = (
        names.dns_subdomain(f"{path}.deviceClassName", class_name)
        if class_name
        else [required(f"{path}.deviceClassName")]
    )
    causes += _selectors(demand, path, check_expression)
    causes += _derived_attributes(demand, path, targets, used, check_expression)
    if mode == "All":
        if count != 0:
            causes.append(invalid(f"{path}.count", count, "must not be specified when allocationMode is 'All'"))
    elif mode == "ExactCount":
        if count <= 0:
            causes.append(invalid(f"{path}.count", count, "must be greater than zero"))
    else:
        causes.append(not_supported(f"{path}.allocationMode", mode, _MODES))
    return causes + validate_tolerations(demand, path)


def _selectors(holder: Fields, path: str, check_expression: ExpressionCheck | None) -> list[Cause]:
    def selector(item_path: str, item: Fields) -> list[Cause]:
        if item.get("cel") is None:
            return [required(f"{item_path}.cel")]
        expression = text(item["cel"], "expression")
        if not expression:
            return [invalid(f"{item_path}.cel.expression", expression, "compilation failed: the expression is empty")]
        return _expression(expression, f"{item_path}.cel.expression", check_expression)

    return each(items(holder, "selectors"), f"{path}.selectors", limits.SELECTORS, selector)


def _expression(expression: str, path: str, check_expression: ExpressionCheck | None) -> list[Cause]:
    if not expression:
        return [required(path)]
    if len(expression.encode()) > limits.EXPRESSION_BYTES:
        return [too_long(path, limits.EXPRESSION_BYTES)]
    complaint = check_expression(expression) if check_expression else None
    return [invalid(path, expression, f"compilation failed: {complaint}")] if complaint else []


def _constraint(constraint: Fields, path: str, known: frozenset[str]) -> list[Cause]:
    causes = validate_request_references(constraint, path, known)
    held = [name for name in ("matchAttribute", "distinctAttribute") if constraint.get(name) is not None]
    if not held:  # both at once are taken (measured on 1.37.2)
        causes.append(required(path, 'exactly one of "matchAttribute" or "distinctAttribute" is required'))
    for name in held:
        causes += names.fully_qualified_name(f"{path}.{name}", constraint[name])
    return causes


def _constraint_attributes(constraints: list[Fields]) -> dict[str, set[str]]:
    """Attributes by the request that a constraint names; ``""`` stands for all requests."""
    used: dict[str, set[str]] = {}
    for constraint in constraints:
        attribute = constraint.get("matchAttribute") or constraint.get("distinctAttribute")
        if attribute:
            for target in strings(constraint, "requests") or [""]:
                used.setdefault(target, set()).add(attribute)
    return used


def _derived_attributes(
    demand: Fields,
    path: str,
    targets: set[str],
    used: Mapping[str, set[str]],
    check_expression: ExpressionCheck | None,
) -> list[Cause]:
    """KEP-6080: expressions that give a constraint something to compare."""
    attributes = items(demand, "derivedAttributes")
    list_path = f"{path}.derivedAttributes"
    if len(attributes) > limits.REQUESTS:
        return [too_many(list_path, len(attributes), limits.REQUESTS)]

    def derived(item_path: str, item: Fields) -> list[Cause]:
        name = text(item, "name")
        causes = names.fully_qualified_name(f"{item_path}.name", name) if name else [required(f"{item_path}.name")]
        if name and not any(name in used.get(target, ()) for target in targets):
            detail = "must be referenced by at least one matchAttribute or distinctAttribute constraint"
            causes.append(invalid(f"{item_path}.name", name, f"{detail} targeting this request"))
        return causes + _expression(text(item, "expression"), f"{item_path}.expression", check_expression)

    return each(attributes, list_path, None, derived, key=lambda item: text(item, "name"))


def _is_extended_resource(name: str) -> bool:
    """pkg/apis/core/v1/helper, IsExtendedResourceName: domain/name outside kubernetes.io, fit to carry "requests."."""
    if "/" not in name or "kubernetes.io/" in name or name.startswith("requests."):
        return False
    return not names.label_key("", f"requests.{name}")
