"""Structural schemas of CustomResourceDefinitions: pruning, defaults, validation.

The common subset of OpenAPI v3 that generated CRDs use: type, properties, items, additionalProperties, required, enum,
nullable, lengths, counts, bounds, pattern, int-or-string, preserve-unknown-fields. Texts and reasons follow
apiextensions-apiserver, pkg/apiserver/validation. CEL rules (x-kubernetes-validations) and formats are not evaluated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from dra_driver.simulation.store.patching import clone
from dra_driver.simulation.validation.cause import Cause, Reason, invalid, not_supported, required, too_long, too_many

Schema = dict[str, Any]
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: (isinstance(v, int) and not isinstance(v, bool)) or (isinstance(v, float) and v.is_integer()),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
}
_SERVER_FIELDS = frozenset({"apiVersion", "kind", "metadata"})


def prune(schema: Schema, obj: dict[str, Any]) -> dict[str, Any]:
    """A copy of the whole object without the fields that the schema does not know."""
    known = {name: _pruned({}, value) for name, value in obj.items() if name in _SERVER_FIELDS}
    rest = _pruned(schema, {name: value for name, value in obj.items() if name not in _SERVER_FIELDS})
    return {**known, **rest}


def _pruned(schema: Schema, value: Any) -> Any:
    properties, extra = schema.get("properties"), schema.get("additionalProperties")
    if isinstance(value, list):
        return [_pruned(schema.get("items") or {}, item) for item in value]
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return clone(value)
    if isinstance(extra, dict):
        return {name: _pruned(extra, item) for name, item in value.items()}
    if properties is None:
        return clone(value)
    return {name: _pruned(properties[name], item) for name, item in value.items() if name in properties}


def set_defaults(schema: Schema, value: Any) -> None:
    """Fill in defaults below a value that is there; ``value`` is changed."""
    if isinstance(value, dict):
        for name, inner in (schema.get("properties") or {}).items():
            if value.get(name, ...) is None and not inner.get("nullable"):
                del value[name]  # null means unset where null is not allowed
            if name not in value and "default" in inner:
                value[name] = clone(inner["default"])
            if name in value:
                set_defaults(inner, value[name])
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            for item in value.values():
                set_defaults(extra, item)
    elif isinstance(value, list):
        for item in value:
            set_defaults(schema.get("items") or {}, item)


def violations(schema: Schema, obj: dict[str, Any]) -> Iterator[Cause]:
    """What of the whole object the schema refuses."""
    yield from _violations(schema, {k: v for k, v in obj.items() if k not in _SERVER_FIELDS}, "")


def _violations(schema: Schema, value: Any, path: str) -> Iterator[Cause]:
    if value is None:
        if not schema.get("nullable") and schema.get("type"):
            yield _wrong_type(path, value, schema["type"])
        return
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield _wrong_type(path, value, "integer,string")
        return
    wanted = schema.get("type")
    if wanted and not _TYPES[wanted](value):
        yield _wrong_type(path, value, wanted)
        return
    if "enum" in schema and value not in schema["enum"]:
        yield not_supported(path, value, [str(word) for word in schema["enum"]])
    if isinstance(value, dict):
        yield from _object_violations(schema, value, path)
    elif isinstance(value, list):
        yield from _list_violations(schema, value, path)
    elif isinstance(value, str):
        yield from _string_violations(schema, value, path)
    elif not isinstance(value, bool):
        yield from _number_violations(schema, value, path)


def _object_violations(schema: Schema, value: dict[str, Any], path: str) -> Iterator[Cause]:
    properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    for name in schema.get("required") or []:
        if name not in value:
            yield required(_child(path, name))
    for name, item in value.items():
        if name in properties:
            yield from _violations(properties[name], item, _child(path, name))
        elif isinstance(extra, dict):
            yield from _violations(extra, item, _child(path, name))
    if "maxProperties" in schema and len(value) > schema["maxProperties"]:
        yield too_many(path, len(value), schema["maxProperties"])


def _list_violations(schema: Schema, value: list[Any], path: str) -> Iterator[Cause]:
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        yield too_many(path, len(value), schema["maxItems"])
    if "minItems" in schema and len(value) < schema["minItems"]:
        yield invalid(path, len(value), f"{path} in body should have at least {schema['minItems']} items")
    for index, item in enumerate(value):
        yield from _violations(schema.get("items") or {}, item, f"{path}[{index}]")


def _string_violations(schema: Schema, value: str, path: str) -> Iterator[Cause]:
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        yield too_long(path, schema["maxLength"])
    if "minLength" in schema and len(value) < schema["minLength"]:
        yield invalid(path, value, f"{path} in body should be at least {schema['minLength']} chars long")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield invalid(path, value, f"{path} in body should match '{schema['pattern']}'")


def _number_violations(schema: Schema, value: float, path: str) -> Iterator[Cause]:
    if "minimum" in schema and value < schema["minimum"]:
        yield invalid(path, value, f"{path} in body should be greater than or equal to {schema['minimum']}")
    if "maximum" in schema and value > schema["maximum"]:
        yield invalid(path, value, f"{path} in body should be less than or equal to {schema['maximum']}")


def _wrong_type(path: str, value: Any, wanted: str) -> Cause:
    shown = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}.get(type(value))
    shown = shown or ("integer" if isinstance(value, int) else "number")
    message = f"Invalid value: {json.dumps(shown)}: {path} in body must be of type {wanted}: {json.dumps(shown)}"
    return Cause(path, Reason.TYPE_INVALID, message)


def _child(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
