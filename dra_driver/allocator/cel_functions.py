"""The functions of the DRA CEL environment, as Python callables that cel-python looks up by name.

Here: operators with CEL's own equality, the quantity and semver libraries (k8s.io/apiserver/pkg/cel/library), and the
names of what is and is not there; strings and lists are ``cel_strings``. A receiver is the first argument. A callable
raises TypeError for "no such overload" and ValueError for a bad value; the interpreter makes CEL errors of both.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from celpy import celtypes

from dra_driver.allocator import cel_strings, cel_values
from dra_driver.allocator.cel_values import need
from dra_driver.allocator.semver import SemVer
from dra_driver.quantity import Quantity

CelFunction = Callable[..., Any]

_INT64 = range(-(2**63), 2**63)


def _bool(value: bool) -> Any:
    return celtypes.BoolType(value)


def _unless_error(function: Callable[[Any, Any], bool]) -> CelFunction:
    """An operator that hands on a failed operand: cel-python passes errors as values."""

    def checked(left: Any, right: Any) -> Any:
        for operand in (left, right):
            if isinstance(operand, Exception):
                return operand
        return _bool(function(left, right))

    return checked


def _index(container: Any, key: Any) -> Any:
    for operand in (container, key):
        if isinstance(operand, Exception):
            return operand
    return cel_values.index(container, key)


# Quantities and versions


def _quantity(text: Any) -> Quantity:
    return Quantity.parse(str(need(text, str)))


def _is_quantity(text: Any) -> Any:
    return _parses(Quantity.parse, str(need(text, str)))


def _semver(text: Any, normalize: Any = False) -> SemVer:
    return (SemVer.parse_tolerant if normalize else SemVer.parse)(str(need(text, str)))


def _is_semver(text: Any, normalize: Any = False) -> Any:
    return _parses(SemVer.parse_tolerant if normalize else SemVer.parse, str(need(text, str)))


def _parses(parse: Callable[[str], object], text: str) -> Any:
    try:
        parse(text)
    except ValueError:
        return _bool(False)
    return _bool(True)


def _ordered(left: Any, right: Any) -> None:
    if not (isinstance(left, Quantity | SemVer) and type(left) is type(right)):
        raise TypeError(f"no such overload for {cel_values.type_name(left)} and {cel_values.type_name(right)}")


def _compare_to(left: Any, right: Any) -> Any:
    _ordered(left, right)
    return celtypes.IntType((left > right) - (left < right))


def _is_greater_than(left: Any, right: Any) -> Any:
    _ordered(left, right)
    return _bool(left > right)


def _is_less_than(left: Any, right: Any) -> Any:
    _ordered(left, right)
    return _bool(left < right)


def _as_integer(quantity: Any) -> Any:
    if not need(quantity, Quantity).is_whole() or quantity.value() not in _INT64:
        raise ValueError(f"quantity {quantity} cannot be represented as an integer")
    return celtypes.IntType(quantity.value())


def _is_integer(quantity: Any) -> Any:
    return _bool(need(quantity, Quantity).is_whole() and quantity.value() in _INT64)


def _as_float(quantity: Any) -> Any:
    return celtypes.DoubleType(need(quantity, Quantity).nanos / 10**9)


def _sign(quantity: Any) -> Any:
    nanos = need(quantity, Quantity).nanos
    return celtypes.IntType((nanos > 0) - (nanos < 0))


def _to_quantity(value: Any) -> Quantity:
    if isinstance(value, celtypes.IntType):
        return Quantity.of(int(value))
    quantity: Quantity = need(value, Quantity)
    return quantity


def _part(name: str) -> CelFunction:
    return lambda version: celtypes.IntType(getattr(need(version, SemVer), name))


OPERATORS: Mapping[str, CelFunction] = {
    "_==_": _unless_error(cel_values.equal),
    "_!=_": _unless_error(lambda left, right: not cel_values.equal(left, right)),
    "_<_": _unless_error(cel_values.less),
    "_>_": _unless_error(lambda left, right: cel_values.less(right, left)),
    "_<=_": _unless_error(lambda left, right: cel_values.less(left, right) or cel_values.equal(left, right)),
    "_>=_": _unless_error(lambda left, right: cel_values.less(right, left) or cel_values.equal(left, right)),
    "_in_": _unless_error(lambda item, container: cel_values.contains(container, item)),
    "_[_]": _index,
    "_+_": cel_values.arithmetic(operator.add),
    "_-_": cel_values.arithmetic(operator.sub),
    "_*_": cel_values.arithmetic(operator.mul),
    "_/_": cel_values.arithmetic(operator.truediv),
    "_%_": cel_values.arithmetic(operator.mod),
}

# Called as f(x): name -> callable. The conversions and size() are cel-python's own.
GLOBAL_FUNCTIONS: Mapping[str, CelFunction] = {
    "quantity": _quantity,
    "isQuantity": _is_quantity,
    "semver": _semver,
    "isSemver": _is_semver,
}

# Called as x.f(...).
METHODS: Mapping[str, CelFunction] = {
    "compareTo": _compare_to,
    "isGreaterThan": _is_greater_than,
    "isLessThan": _is_less_than,
    "asInteger": _as_integer,
    "isInteger": _is_integer,
    "asApproximateFloat": _as_float,
    "sign": _sign,
    "add": lambda left, right: need(left, Quantity) + _to_quantity(right),
    "sub": lambda left, right: need(left, Quantity) - _to_quantity(right),
    "major": _part("major"),
    "minor": _part("minor"),
    "patch": _part("patch"),
    **cel_strings.METHODS,
}

BUILT_IN_FUNCTIONS = frozenset(
    {"size", "type", "dyn", "bool", "bytes", "double", "duration", "int", "string", "timestamp", "uint", "matches"}
)
BUILT_IN_METHODS = frozenset(
    {
        "size",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getFullYear",
        "getHours",
        "getMilliseconds",
        "getMinutes",
        "getMonth",
        "getSeconds",
    }
)

# In the Kubernetes CEL environment (1.34 and later), but not here.
UNSUPPORTED_FUNCTIONS = frozenset({"ip", "isIP", "cidr", "isCIDR", "url", "isURL"})
UNSUPPORTED_METHODS = frozenset(
    {
        "orValue", "or", "optMap", "optFlatMap", "hasValue", "value", "bind", "format", "validate", "named", "min",
        "existsOne", "transformList", "transformMap", "transformMapEntry", "flatten", "slice", "sort", "sortBy",
        "distinct", "first", "last", "range", "reverse", "quote", "includes", "intersects", "equivalent", "family",
        "isUnspecified", "isLoopback", "containsIP", "containsCIDR", "prefixLength", "masked", "getHost", "getScheme",
        "getHostname", "getPort", "getEscapedPath", "getQuery", "isCanonical", "isGlobalUnicast",
        "isLinkLocalMulticast", "isLinkLocalUnicast", "of", "ofNonZeroValue", "none",
    }
)  # fmt: skip
UNSUPPORTED_NAMESPACES = frozenset({"cel", "sets", "optional", "ip", "strings", "lists"})
