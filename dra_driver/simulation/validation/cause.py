"""Why an object is refused: the causes of a 422 answer, with the field paths, reasons and wording of the API server.

Shapes and texts follow apimachinery's field.Error (pkg/util/validation/field/errors.go) as it appears in the
``details.causes`` of a Status object. Relies on nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """metav1.CauseType values that validation uses."""

    INVALID = "FieldValueInvalid"
    REQUIRED = "FieldValueRequired"
    NOT_SUPPORTED = "FieldValueNotSupported"
    TOO_LONG = "FieldValueTooLong"
    TOO_MANY = "FieldValueTooMany"
    FORBIDDEN = "FieldValueForbidden"
    DUPLICATE = "FieldValueDuplicate"
    NOT_FOUND = "FieldValueNotFound"
    TYPE_INVALID = "FieldValueTypeInvalid"


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for refusal: ``field`` is a path such as ``spec.devices[3].attributes[uuid].string``."""

    field: str
    reason: str
    message: str


def invalid(path: str, value: object, detail: str) -> Cause:
    return Cause(path, Reason.INVALID, f"Invalid value: {_shown(value)}: {detail}")


def required(path: str, detail: str = "") -> Cause:
    return Cause(path, Reason.REQUIRED, f"Required value: {detail}" if detail else "Required value")


def not_supported(path: str, value: object, supported: Iterable[str]) -> Cause:
    known = ", ".join(json.dumps(word) for word in supported)
    return Cause(path, Reason.NOT_SUPPORTED, f"Unsupported value: {_shown(value)}: supported values: {known}")


def too_long(path: str, limit: int) -> Cause:
    return Cause(path, Reason.TOO_LONG, f"Too long: may not be more than {limit} bytes")


def too_many(path: str, count: int, limit: int) -> Cause:
    return Cause(path, Reason.TOO_MANY, f"Too many: {count}: must have at most {limit} items")


def forbidden(path: str, detail: str) -> Cause:
    return Cause(path, Reason.FORBIDDEN, f"Forbidden: {detail}")


def duplicate(path: str, value: object) -> Cause:
    return Cause(path, Reason.DUPLICATE, f"Duplicate value: {_shown(value)}")


def not_found(path: str, value: object) -> Cause:
    return Cause(path, Reason.NOT_FOUND, f"Not found: {_shown(value)}")


def type_invalid(path: str, value: object, wanted: str) -> Cause:
    return Cause(path, Reason.TYPE_INVALID, f"Invalid value: {_shown(value)}: must be {wanted}")


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, sort_keys=True)
    return text if len(text) <= 512 else f"{text[:509]}..."
