"""A device as CEL sees it, and CEL's equality and order over such values.

``device`` has the fields of k8s.io/dynamic-resource-allocation/cel/compile.go: driver, attributes, capacity,
allowMultipleAllocations. Unknown domains give an empty map, unknown ids an error. Equality and order follow the CEL
language definition for dynamic values (numbers compare across types, everything else only within one), which
cel-python does not: there ``true == 1`` holds and ``"a" == 1`` is an error.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from celpy import celtypes

from dra_driver.allocator.model import AttributeValue, Device, Version
from dra_driver.allocator.semver import SemVer
from dra_driver.quantity import Quantity

DEVICE_FIELDS = frozenset({"driver", "attributes", "capacity", "allowMultipleAllocations"})


class DomainMap(celtypes.MapType):  # type: ignore[misc,unused-ignore]
    """``device.attributes`` and ``device.capacity``: a domain that nobody published is an empty map."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if key in self else celtypes.MapType()


def device_value(device: Device) -> celtypes.MapType:
    attributes = DomainMap()
    for domain, values in device.attributes.items():
        attributes[celtypes.StringType(domain)] = _map_of({name: _attribute(value) for name, value in values.items()})
    capacity = DomainMap()
    for domain, quantities in device.capacity.items():
        capacity[celtypes.StringType(domain)] = _map_of(quantities)
    return _map_of(
        {
            "driver": celtypes.StringType(device.id.driver),
            "attributes": attributes,
            "capacity": capacity,
            "allowMultipleAllocations": celtypes.BoolType(device.allow_multiple_allocations),
        }
    )


def _map_of(values: Any) -> celtypes.MapType:
    return celtypes.MapType({celtypes.StringType(name): value for name, value in values.items()})


def _attribute(value: AttributeValue) -> Any:
    if isinstance(value, tuple):
        return celtypes.ListType([_attribute(entry) for entry in value])
    if isinstance(value, bool):
        return celtypes.BoolType(value)
    if isinstance(value, int):
        return celtypes.IntType(value)
    if isinstance(value, Version):
        return SemVer.parse(value.text)
    return celtypes.StringType(value)


def equal(left: Any, right: Any) -> bool:
    """CEL ``==`` on dynamic values; values of different kinds are not equal, never an error."""
    kind = _kind(left)
    if kind != _kind(right):
        return False
    if kind == "list":
        return len(left) == len(right) and all(map(equal, left, right))
    if kind == "map":
        return len(left) == len(right) and all(key in right and equal(left[key], right[key]) for key in left)
    if kind == "string":
        return str.__eq__(left, right)
    if kind == "number":
        return bool(_plain_number(left) == _plain_number(right))
    return bool(left == right)


def less(left: Any, right: Any) -> bool:
    """CEL ``<``. Raises TypeError (no such overload) where CEL has no order, quantities and versions included."""
    kind = _kind(left)
    if kind != _kind(right) or kind not in ("number", "string", "bool", "bytes", "time", "duration"):
        raise TypeError(f"no such overload: {type_name(left)} < {type_name(right)}")
    if kind == "string":
        return str.__lt__(left, right)
    if kind == "number":
        return bool(_plain_number(left) < _plain_number(right))
    return bool(left < right)


def contains(container: Any, item: Any) -> bool:
    """CEL ``in``."""
    kind = _kind(container)
    if kind == "list":
        return any(equal(entry, item) for entry in container)
    if kind == "map":
        return any(equal(key, item) for key in container)
    raise TypeError(f"no such overload: {type_name(item)} in {type_name(container)}")


def index(container: Any, key: Any) -> Any:
    """CEL ``[]``. Raises KeyError, IndexError or TypeError."""
    kind = _kind(container)
    if kind == "map":
        if isinstance(container, DomainMap) or _kind(key) == "string":
            return container[key]
        for candidate, value in container.items():
            if equal(candidate, key):
                return value
        raise KeyError(key)
    if kind == "list" and isinstance(key, int) and _kind(key) == "number":
        if not 0 <= int(key) < len(container):
            raise IndexError(key)
        return list.__getitem__(container, int(key))
    raise TypeError(f"no such overload: {type_name(container)}[{type_name(key)}]")


def need(value: Any, *types: type) -> Any:
    """``value``, or TypeError (no such overload) when it is of another type; a bool is not a number here."""
    if not isinstance(value, types) or (isinstance(value, celtypes.BoolType) and celtypes.BoolType not in types):
        raise TypeError(f"no such overload for {type_name(value)}")
    return value


def arithmetic(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """CEL adds an int to an int only; Python would add an int to a double."""

    def checked(left: Any, right: Any) -> Any:
        for operand in (left, right):
            if isinstance(operand, Exception):
                return operand
        if type_name(left) != type_name(right):
            raise TypeError(f"no such overload for {type_name(left)} and {type_name(right)}")
        return function(left, right)

    return checked


def type_name(value: Any) -> str:
    """The CEL name of a value's type, for messages."""
    names = {celtypes.DoubleType: "double", celtypes.UintType: "uint"}
    return names.get(type(value)) or {"number": "int", "time": "timestamp"}.get(_kind(value), _kind(value))


def _kind(value: Any) -> str:
    if isinstance(value, bool | celtypes.BoolType):
        return "bool"
    for types, kind in _KINDS:
        if isinstance(value, types):
            return kind
    return type(value).__name__


def _plain_number(value: Any) -> int | float:
    """cel-python's numbers refuse to be compared across types; Python's compare exactly."""
    return float(value) if isinstance(value, float) else int(value)


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((int, float), "number"),
    (str, "string"),
    (bytes, "bytes"),
    (list, "list"),
    (dict, "map"),
    (Quantity, "quantity"),
    (SemVer, "semver"),
    (datetime.datetime, "time"),
    (datetime.timedelta, "duration"),
    (type(None), "null"),
)
