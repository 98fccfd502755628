"""Functions of the DRA CEL environment over strings, regular expressions (RE2) and lists; see cel_functions.

cel-go's ext.Strings version 2, and the regex and lists libraries of k8s.io/apiserver/pkg/cel/library.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import re2
from celpy import celtypes

from dra_driver.allocator import cel_values
from dra_driver.allocator.cel_values import need

_RE2_OPTIONS = re2.Options()
_RE2_OPTIONS.log_errors = False  # the error is raised; RE2 would also write it to standard error


def _char_at(text: Any, position: Any) -> Any:
    need(text, str)
    if not 0 <= need(position, celtypes.IntType) <= len(text):
        raise ValueError(f"index out of range: {int(position)}")
    return celtypes.StringType(str(text)[int(position) : int(position) + 1])


def _index_of(receiver: Any, item: Any, start: Any = 0) -> Any:
    if isinstance(receiver, list):
        return celtypes.IntType(next((i for i, entry in enumerate(receiver) if cel_values.equal(entry, item)), -1))
    return celtypes.IntType(str(need(receiver, str)).find(str(need(item, str)), int(start)))


def _last_index_of(receiver: Any, item: Any) -> Any:
    if isinstance(receiver, list):
        found = [i for i, entry in enumerate(receiver) if cel_values.equal(entry, item)]
        return celtypes.IntType(found[-1] if found else -1)
    return celtypes.IntType(str(need(receiver, str)).rfind(str(need(item, str))))


def _ascii_case(text: Any, convert: Callable[[str], str]) -> Any:
    return celtypes.StringType("".join(convert(c) if c.isascii() else c for c in need(text, str)))


def _replace(text: Any, old: Any, new: Any, limit: Any = -1) -> Any:
    replaced = str(need(text, str)).replace(str(need(old, str)), str(need(new, str)), int(limit))
    return celtypes.StringType(replaced)


def _split(text: Any, separator: Any, limit: Any = -1) -> Any:
    limit = int(limit)
    if limit == 0:
        return celtypes.ListType()
    text, separator = str(need(text, str)), str(need(separator, str))
    if separator:
        parts = text.split(separator, limit - 1 if limit > 0 else -1)
    else:
        parts = list(text) if limit < 0 else [*text[: limit - 1], text[limit - 1 :]]
    return celtypes.ListType([celtypes.StringType(part) for part in parts])


def _join(parts: Any, separator: Any = "") -> Any:
    return celtypes.StringType(str(need(separator, str)).join(str(need(part, str)) for part in need(parts, list)))


def _substring(text: Any, start: Any, end: Any = None) -> Any:
    text = str(need(text, str))
    first, last = int(start), len(text) if end is None else int(end)
    if not 0 <= first <= last <= len(text):
        raise ValueError(f"substring [{first}, {last}) is outside a string of {len(text)} characters")
    return celtypes.StringType(text[first:last])


def _pattern(pattern: Any) -> Any:
    try:
        return re2.compile(str(need(pattern, str)), _RE2_OPTIONS)
    except re2.error as error:
        raise ValueError(f"invalid regular expression: {error}") from error


def _matches(text: Any, pattern: Any) -> Any:
    return celtypes.BoolType(_pattern(pattern).search(str(need(text, str))) is not None)


def _find(text: Any, pattern: Any) -> Any:
    match = _pattern(pattern).search(str(need(text, str)))
    return celtypes.StringType(match.group(0) if match else "")


def _find_all(text: Any, pattern: Any, limit: Any = -1) -> Any:
    found = [celtypes.StringType(match.group(0)) for match in _pattern(pattern).finditer(str(need(text, str)))]
    return celtypes.ListType(found if int(limit) < 0 else found[: int(limit)])


def _is_sorted(values: Any) -> Any:
    entries = need(values, list)
    return celtypes.BoolType(not any(cel_values.less(after, before) for before, after in itertools.pairwise(entries)))


def _max(values: Any) -> Any:
    entries = need(values, list)
    if not entries:
        raise ValueError("max called on an empty list")
    largest = entries[0]
    for entry in entries[1:]:
        largest = entry if cel_values.less(largest, entry) else largest
    return largest


def _sum(values: Any) -> Any:
    entries = need(values, list)
    if not entries:
        return celtypes.IntType(0)
    total = entries[0]
    for entry in entries[1:]:
        total = cel_values.arithmetic(operator.add)(total, entry)
    return total


# Called as x.f(...).
METHODS: Mapping[str, Callable[..., Any]] = {
    "charAt": _char_at,
    "contains": lambda text, part: celtypes.BoolType(str(need(part, str)) in str(need(text, str))),
    "startsWith": lambda text, part: celtypes.BoolType(str(need(text, str)).startswith(str(need(part, str)))),
    "endsWith": lambda text, part: celtypes.BoolType(str(need(text, str)).endswith(str(need(part, str)))),
    "matches": _matches,
    "find": _find,
    "findAll": _find_all,
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    "lowerAscii": lambda text: _ascii_case(text, str.lower),
    "upperAscii": lambda text: _ascii_case(text, str.upper),
    "trim": lambda text: celtypes.StringType(str(need(text, str)).strip()),
    "replace": _replace,
    "split": _split,
    "join": _join,
    "substring": _substring,
    "isSorted": _is_sorted,
    "max": _max,
    "sum": _sum,
}
