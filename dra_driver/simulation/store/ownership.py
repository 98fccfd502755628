"""Who owns which field: sets of paths, and their form in ``metadata.managedFields`` (FieldsV1).

A path is a tuple of elements as FieldsV1 writes them: ``f:name`` for a field, ``k:{"type":"Ready"}`` for an item of a
keyed list, ``v:"x"`` for an item of a set. Owned are leaves, and items of lists as such.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dra_driver.kube.interface import Obj
from dra_driver.simulation.store.list_types import SET

FieldPath = tuple[str, ...]
ListKeysOf = Callable[[tuple[str, ...]], tuple[str, ...]]

_UNOWNED = frozenset(
    {("f:apiVersion",), ("f:kind",)}
    | {
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "generateName",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "managedFields",
        )
    }
)


@dataclass(frozen=True, slots=True)
class Manager:
    name: str
    operation: str  # Apply or Update
    subresource: str = ""


Owners = dict[Manager, frozenset[FieldPath]]


def item_element(item: Any, keys: tuple[str, ...]) -> str:
    if keys == SET:
        return "v:" + json.dumps(item, separators=(",", ":"))
    chosen = {key: item[key] for key in sorted(keys) if key in item}
    return "k:" + json.dumps(chosen, separators=(",", ":"))


def owned_paths(obj: Obj, keys_of: ListKeysOf) -> frozenset[FieldPath]:
    """The leaves and list items of an object, without those that belong to nobody."""
    return frozenset(p for p in _walk(obj, (), (), keys_of) if p[:2] not in _UNOWNED and p[:1] not in _UNOWNED)


def _walk(value: Any, path: FieldPath, names: tuple[str, ...], keys_of: ListKeysOf) -> Iterator[FieldPath]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _walk(item, (*path, f"f:{name}"), (*names, name), keys_of)
    elif isinstance(value, list) and (keys := keys_of(names)):
        for item in value:
            element = (*path, item_element(item, keys))
            yield element
            if isinstance(item, dict):
                yield from _walk(item, element, names, keys_of)
    elif path:
        yield path


_MISSING = object()


def value_at(obj: Any, path: FieldPath, keys_of: ListKeysOf) -> Any:
    """The value at a path, or a marker equal only to itself."""
    names: tuple[str, ...] = ()
    for element in path:
        if element.startswith("f:"):
            names = (*names, element[2:])
            obj = obj.get(element[2:], _MISSING) if isinstance(obj, dict) else _MISSING
        else:
            items = obj if isinstance(obj, list) else []
            keys = keys_of(names)
            obj = next((item for item in items if item_element(item, keys) == element), _MISSING)
    return obj


def remove_at(obj: Obj, path: FieldPath, keys_of: ListKeysOf) -> None:
    """Remove the value at a path and the containers that it leaves empty, but no top-level field; changes ``obj``."""
    while len(path) > 1:
        parent = value_at(obj, path[:-1], keys_of)
        if isinstance(parent, dict):
            parent.pop(path[-1][2:], None)
        elif isinstance(parent, list):
            keys = keys_of(tuple(e[2:] for e in path if e.startswith("f:")))
            parent[:] = [item for item in parent if item_element(item, keys) != path[-1]]
        if parent is _MISSING or parent:
            return
        path = path[:-1]


def decode_owners(managed: Iterable[Obj]) -> Owners:
    return {
        Manager(entry.get("manager", ""), entry.get("operation", ""), entry.get("subresource", "")): frozenset(
            _decode(entry.get("fieldsV1") or {}, ())
        )
        for entry in managed
    }


def _decode(fields: Obj, path: FieldPath) -> Iterator[FieldPath]:
    if path and not fields:
        yield path
    for element, inner in fields.items():
        if element == ".":
            yield path
        else:
            yield from _decode(inner, (*path, element))


def encode_owners(owners: Owners, api_version: str, now: str, before: Iterable[Obj]) -> list[Obj]:
    """``managedFields``; an entry whose fields did not change keeps its time, so that nothing is written for it."""
    times = {json.dumps({**entry, "time": ""}, sort_keys=True): entry.get("time", now) for entry in before}
    managed = []
    for manager, paths in owners.items():
        if not paths:
            continue
        entry: Obj = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": api_version,
            "time": "",
            "fieldsType": "FieldsV1",
            "fieldsV1": _encode(paths),
        }
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entry["time"] = times.get(json.dumps(entry, sort_keys=True), now)
        managed.append(entry)
    return managed


def _encode(paths: frozenset[FieldPath]) -> Obj:
    fields: Obj = {}
    for path in sorted(paths):
        node = fields
        for depth, element in enumerate(path):
            if node is not fields and path[:depth] in paths:
                node.setdefault(".", {})
            node = node.setdefault(element, {})
    return fields


def readable(path: FieldPath) -> str:
    """``.spec.containers[name="c"].image``: how conflict messages name a path."""
    text = ""
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "v":
            text += f"[={rest}]"
        else:
            text += f"[{','.join(f'{k}={json.dumps(v)}' for k, v in json.loads(rest).items())}]"
    return text
