"""The wire types of resource.k8s.io/v1 (Kubernetes 1.37): which field holds what.

The semantic rules rely on it: an object whose fields have the right types can be read without further checks. It also
answers which fields the server does not know, and whether two values are the same to the server (quantities by value,
null and empty lists and maps as absent).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dra_driver.quantity import Quantity
from dra_driver.simulation.validation.cause import Cause, invalid, type_invalid


class Scalar(StrEnum):
    STRING = "a string"
    INTEGER = "an integer of 64 bits"
    BOOLEAN = "true or false"
    QUANTITY = "a quantity such as 80Gi"
    TIME = "a time in RFC 3339 form"
    JSON = "any JSON value"


@dataclass(frozen=True, slots=True)
class ListOf:
    item: Shape


@dataclass(frozen=True, slots=True)
class MapOf:
    value: Shape


@dataclass(frozen=True, slots=True)
class Struct:
    fields: Mapping[str, Shape]


Shape = Scalar | ListOf | MapOf | Struct
_Steps = tuple[str, ...]


def mismatches(shape: Shape, value: Any, path: str) -> list[Cause]:
    """Fields whose value has the wrong type. Unknown fields are passed over; null means unset everywhere."""
    found: list[Cause] = []
    _look(shape, value, (path,), found)
    return found


def _look(shape: Shape, value: Any, steps: _Steps, found: list[Cause]) -> None:
    """Adds to ``found``. The path stays in ``steps`` until it is asked for: a slice has ten thousand values, and as a
    rule each of them is right."""
    if value is None or shape is Scalar.JSON:
        return
    if isinstance(shape, Scalar):
        if shape is not Scalar.STRING or type(value) is not str:
            found += _scalar_mismatch(shape, value, steps)
    elif isinstance(shape, ListOf):
        if not isinstance(value, list):
            found.append(type_invalid(_path(steps), value, "a list"))
            return
        for index, item in enumerate(value):
            _look(shape.item, item, (*steps, f"[{index}]"), found)
    elif not isinstance(value, dict):
        found.append(type_invalid(_path(steps), value, "an object"))
    elif isinstance(shape, MapOf):
        for key, item in value.items():
            _look(shape.value, item, (*steps, f"[{key}]"), found)
    else:
        for name, field in shape.fields.items():
            if (item := value.get(name)) is not None:
                _look(field, item, (*steps, f".{name}"), found)


def unknown(shape: Shape, value: Any, path: str) -> Iterator[str]:
    """Paths of fields that the server does not know: refused by kubectl's strict mode, dropped silently otherwise."""
    if isinstance(shape, ListOf) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown(shape.item, item, f"{path}[{index}]")
    elif isinstance(shape, MapOf) and isinstance(value, dict):
        for key, item in value.items():
            yield from unknown(shape.value, item, f"{path}[{key}]")
    elif isinstance(shape, Struct) and isinstance(value, dict):
        for name, item in value.items():
            if name in shape.fields:
                yield from unknown(shape.fields[name], item, child(path, name))
            else:
                yield child(path, name)


def same(shape: Shape, left: Any, right: Any) -> bool:
    """Whether the server takes both for equal (apimachinery: equality.Semantic.DeepEqual)."""
    if isinstance(shape, Scalar):
        if shape is Scalar.QUANTITY and left is not None and right is not None:
            return Quantity.parse(left) == Quantity.parse(right)
        return bool(left == right)
    left, right = left or None, right or None
    if left is None or right is None:
        return left is right
    if isinstance(shape, ListOf):
        return len(left) == len(right) and all(same(shape.item, a, b) for a, b in zip(left, right, strict=True))
    if isinstance(shape, MapOf):
        return left.keys() == right.keys() and all(same(shape.value, left[key], right[key]) for key in left)
    return all(same(field, left.get(name), right.get(name)) for name, field in shape.fields.items())


def child(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _scalar_mismatch(shape: Scalar, value: Any, steps: _Steps) -> list[Cause]:
    if shape is Scalar.QUANTITY:
        try:
            Quantity.parse(value)
        except ValueError as error:
            return [invalid(_path(steps), value, str(error))]
    elif not _fits(shape, value):
        return [type_invalid(_path(steps), value, shape.value)]
    return []


def _path(steps: _Steps) -> str:
    return "".join(steps).removeprefix(".")


def _fits(shape: Scalar, value: Any) -> bool:
    match shape:
        case Scalar.STRING:
            return isinstance(value, str)
        case Scalar.BOOLEAN:
            return isinstance(value, bool)
        case Scalar.INTEGER:
            return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
        case _:  # a time; what is a quantity or any JSON was told before
            return isinstance(value, str) and _is_time(value)


def _is_time(text: str) -> bool:
    try:
        return datetime.datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
