"""Rules of core/v1 NodeSelector, part of slices and allocations (pkg/apis/core/validation: ValidateNodeSelector)."""

from __future__ import annotations

from dra_driver.simulation.validation import names
from dra_driver.simulation.validation.cause import Cause, forbidden, invalid, not_supported, required
from dra_driver.simulation.validation.reading import Fields, each, items, strings, text

_WITH_VALUES = ("In", "NotIn")
_WITHOUT_VALUES = ("Exists", "DoesNotExist")
_NUMERIC = ("Gt", "Lt")
_OPERATORS = ("DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn")


def validate_node_selector(selector: Fields, path: str) -> list[Cause]:
    terms = items(selector, "nodeSelectorTerms")
    if not terms:
        return [required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")]
    return each(terms, f"{path}.nodeSelectorTerms", None, _term)


def _term(path: str, term: Fields) -> list[Cause]:
    return each(items(term, "matchExpressions"), f"{path}.matchExpressions", None, _expression) + each(
        items(term, "matchFields"), f"{path}.matchFields", None, _field
    )


def _expression(path: str, requirement: Fields) -> list[Cause]:
    operator, values = text(requirement, "operator"), strings(requirement, "values")
    causes: list[Cause] = []
    if operator in _WITH_VALUES and not values:
        causes.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in _WITHOUT_VALUES and values:
        causes.append(forbidden(f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
    elif operator in _NUMERIC and len(values) != 1:
        causes.append(required(f"{path}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'"))
    elif operator not in _OPERATORS:
        causes.append(not_supported(f"{path}.operator", operator, _OPERATORS))
    return causes + names.label_key(f"{path}.key", text(requirement, "key"))


def _field(path: str, requirement: Fields) -> list[Cause]:
    operator, values, key = text(requirement, "operator"), strings(requirement, "values"), text(requirement, "key")
    causes: list[Cause] = []
    if operator not in _WITH_VALUES:
        causes.append(not_supported(f"{path}.operator", operator, _WITH_VALUES))
    elif len(values) != 1:
        causes.append(required(f"{path}.values", "must be only one value when `operator` is 'In' or 'NotIn'"))
    if key != "metadata.name":
        causes.append(invalid(f"{path}.key", key, "not a valid field selector key"))
    return causes
