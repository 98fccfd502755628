"""Rules of device taints and tolerations (KEP-5055) and of binding conditions (KEP-5007)."""

from __future__ import annotations

from dra_driver.simulation.validation import limits, names
from dra_driver.simulation.validation.cause import Cause, invalid, not_supported, required
from dra_driver.simulation.validation.reading import Fields, duplicates, each, items, strings, text

_EFFECTS = ("NoExecute", "NoSchedule", "None")
_OPERATORS = ("Equal", "Exists")


def validate_taint(path: str, taint: Fields) -> list[Cause]:
    effect = text(taint, "effect")
    causes = names.label_key(f"{path}.key", text(taint, "key"))
    causes += names.label_value(f"{path}.value", text(taint, "value"))
    if not effect:
        causes.append(required(f"{path}.effect"))
    elif effect not in _EFFECTS:
        causes.append(not_supported(f"{path}.effect", effect, _EFFECTS))
    return causes


def validate_toleration(path: str, toleration: Fields) -> list[Cause]:
    operator, value, effect = (text(toleration, name) for name in ("operator", "value", "effect"))
    causes = names.label_key(f"{path}.key", toleration["key"]) if toleration.get("key") else []
    if operator == "Exists":
        if value:
            causes.append(invalid(f"{path}.value", value, "must be empty for operator `Exists`"))
    elif operator == "Equal":
        causes += names.label_value(f"{path}.value", value)
    elif not operator:
        causes.append(required(f"{path}.operator"))
    else:
        causes.append(not_supported(f"{path}.operator", operator, _OPERATORS))
    if effect and effect not in _EFFECTS:
        causes.append(not_supported(f"{path}.effect", effect, _EFFECTS))
    return causes


def validate_tolerations(holder: Fields, path: str) -> list[Cause]:
    """The documented limit of 16 is not enforced by the server (measured on 1.37.2)."""
    return each(items(holder, "tolerations"), f"{path}.tolerations", None, validate_toleration)


def validate_binding_conditions(holder: Fields, path: str) -> list[Cause]:
    """Conditions to wait for, and those that mean failure: both or none, without repetition or overlap."""
    awaited, failures = strings(holder, "bindingConditions"), strings(holder, "bindingFailureConditions")
    causes: list[Cause] = []
    for name, conditions in (("bindingConditions", awaited), ("bindingFailureConditions", failures)):
        list_path = f"{path}.{name}"
        causes += each(conditions, list_path, limits.BINDING_CONDITIONS, names.label_key)
        causes += duplicates(conditions, list_path, str)
    causes += [
        invalid(f"{path}.bindingFailureConditions[{index}]", condition, "must not overlap with bindingConditions")
        for index, condition in enumerate(failures)
        if condition in awaited
    ]
    if failures and not awaited:
        detail = "bindingConditions are required to use bindingFailureConditions"
        causes.append(invalid(f"{path}.bindingConditions", awaited, detail))
    if awaited and not failures:
        detail = "bindingFailureConditions are required to use bindingConditions"
        causes.append(invalid(f"{path}.bindingFailureConditions", failures, detail))
    return causes


def validate_skipped_operations(holder: Fields, path: str) -> list[Cause]:
    """KEP-5945: preparation may only be skipped together with its reverse."""
    known = ("*", "NodePrepareResources", "NodeUnprepareResources")
    skipped = strings(holder, "skipNodeOperations")
    list_path = f"{path}.skipNodeOperations"
    causes = [
        not_supported(f"{list_path}[{index}]", operation, known)
        for index, operation in enumerate(skipped)
        if operation not in known
    ]
    causes += duplicates(skipped, list_path, str)
    if "NodePrepareResources" in skipped and not {"NodeUnprepareResources", "*"} & set(skipped):
        detail = "NodePrepareResources cannot be skipped unless NodeUnprepareResources is also skipped"
        causes.append(invalid(list_path, skipped, detail))
    return causes
