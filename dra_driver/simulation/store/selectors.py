"""Label and field selectors of LIST, WATCH and DELETE collection: parsed once, then asked for each object.

Grammar and meaning follow k8s.io/apimachinery, pkg/labels and pkg/fields. ``a notin (x)`` and ``a != x`` also match
objects that have no label ``a``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dra_driver.kube.interface import BadRequest, Obj, Resource
from dra_driver.kube.resources import traits

Matcher = Callable[[Obj], bool]

_KEY = r"(?:[A-Za-z0-9.-]+/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_TERM = re.compile(
    rf"\s*(?:!\s*(?P<absent>{_KEY})"
    rf"|(?P<set_key>{_KEY})\s+(?P<set_op>in|notin)\s*\((?P<values>[^()]*)\)"
    rf"|(?P<key>{_KEY})\s*(?P<op>==|=|!=|>|<)\s*(?P<value>[^,\s()!=<>]*)"
    rf"|(?P<present>{_KEY}))\s*(?P<end>,|$)"
)


@dataclass(frozen=True, slots=True)
class _LabelTerm:
    key: str
    op: str  # in, notin, exists, absent, >, <
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.op:
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "absent":
                return value is None
        return value is not None and self._compares(value)

    def _compares(self, value: str) -> bool:
        try:
            left, right = int(value), int(next(iter(self.values)))
        except ValueError:
            return False
        return left > right if self.op == ">" else left < right


def _label_value(value: str, selector: str) -> str:
    if not _VALUE.fullmatch(value):
        raise _malformed(selector, f"{value!r} is not a label value")
    return value


def _malformed(selector: str, why: str) -> BadRequest:
    return BadRequest(f"unable to parse requirement of selector {selector!r}: {why}", reason="BadRequest")


def _label_terms(selector: str) -> list[_LabelTerm]:
    terms: list[_LabelTerm] = []
    position = 0
    while position < len(selector):
        match = _TERM.match(selector, position)
        if match is None or (match["end"] == "," and match.end() == len(selector)):
            raise _malformed(selector, f"at {selector[position:]!r}")
        if match["absent"]:
            terms.append(_LabelTerm(match["absent"], "absent"))
        elif match["present"]:
            terms.append(_LabelTerm(match["present"], "exists"))
        elif match["set_key"]:
            values = frozenset(_label_value(v.strip(), selector) for v in match["values"].split(","))
            terms.append(_LabelTerm(match["set_key"], match["set_op"], values))
        else:
            op = {"=": "in", "==": "in", "!=": "notin"}.get(match["op"], match["op"])
            value = _label_value(match["value"], selector)
            if op in "><" and not re.fullmatch(r"-?\d+", value):
                raise _malformed(selector, f"for '>' and '<' the value must be an integer, not {value!r}")
            terms.append(_LabelTerm(match["key"], op, frozenset({value})))
        position = match.end()
    return terms


@dataclass(frozen=True, slots=True)
class _FieldTerm:
    path: tuple[str, ...]
    value: str
    equal: bool

    def matches(self, obj: Obj) -> bool:
        found: Any = obj
        for part in self.path:
            found = found.get(part) if isinstance(found, dict) else None
        return (_as_text(found) == self.value) is self.equal


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _field_terms(resource: Resource, selector: str) -> Iterable[_FieldTerm]:
    known = traits(resource).fields | {"metadata.name"}
    if resource.namespaced:
        known |= {"metadata.namespace"}
    for part in filter(None, selector.split(",")):
        match = re.fullmatch(r"([^=!]+?)(==|!=|=)(.*)", part, re.DOTALL)
        if match is None:
            raise BadRequest(
                f"invalid selector: '{selector}'; can't understand '{part}'",
                reason="BadRequest",
            )
        name, op, value = match.groups()
        if name not in known:
            kind = f"{resource.api_version}, Kind={resource.kind}"
            raise BadRequest(f"field label not supported for {kind}: {name}", reason="BadRequest")
        yield _FieldTerm(tuple(name.split(".")), re.sub(r"\\(.)", r"\1", value), op != "!=")


def compile_selectors(resource: Resource, label_selector: str, field_selector: str) -> Matcher | None:
    """One predicate over objects, or None when everything matches.

    Raises BadRequest for a malformed selector and for a field that this resource cannot be selected by.
    """
    labels = _label_terms(label_selector)
    fields = list(_field_terms(resource, field_selector))
    if not labels and not fields:
        return None

    def matches(obj: Obj) -> bool:
        own = obj["metadata"].get("labels") or {}
        return all(term.matches(own) for term in labels) and all(term.matches(obj) for term in fields)

    return matches
