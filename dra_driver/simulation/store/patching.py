"""Patches over plain JSON values: merge patch (RFC 7386), JSON patch (RFC 6902), strategic merge by list keys.

Pure: the document given is never changed. What a list is keyed by is given by the caller, who knows the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Json = Any
ListKeys = Callable[[tuple[str, ...]], tuple[str, ...]]
"""The merge keys of the list at a path of field names; empty for a list that is replaced as a whole."""


class PatchError(ValueError):
    """The patch is malformed, or (``unmet``) cannot be applied to this document."""

    def __init__(self, message: str, *, unmet: bool = False) -> None:
        super().__init__(message)
        self.unmet = unmet


def clone(value: Json) -> Json:
    """A deep copy of a JSON value; several times faster than ``copy.deepcopy``."""
    if isinstance(value, dict):
        return {k: clone(v) for k, v in value.items()}
    if isinstance(value, list):
        return [clone(v) for v in value]
    return value


def merge(document: Json, patch: Json) -> Json:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return clone(patch)
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def strategic_merge(document: Json, patch: Json, list_keys: ListKeys, path: tuple[str, ...] = ()) -> Json:
    """Like :func:`merge`, but keyed lists merge item by item; ``$patch: delete`` and ``replace`` are understood.

    Ordering directives (``$setElementOrder``, ``$retainKeys``) are dropped: new items go to the end.
    """
    if not isinstance(patch, dict):
        return clone(patch)
    result = dict(document) if isinstance(document, dict) else {}
    if patch.get("$patch") == "replace":
        return {k: clone(v) for k, v in patch.items() if k != "$patch"}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            result[name] = [item for item in result.get(name) or [] if item not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, list) and (keys := list_keys((*path, key))):
            result[key] = _merge_items(result.get(key) or [], value, keys, list_keys, (*path, key))
        else:
            result[key] = strategic_merge(result.get(key), value, list_keys, (*path, key))
    return result


def _merge_items(
    items: Sequence[Json], patches: Sequence[Json], keys: tuple[str, ...], list_keys: ListKeys, path: tuple[str, ...]
) -> list[Json]:
    result = list(items)
    for patch in patches:
        if not isinstance(patch, dict):  # a set of plain values
            if patch not in result:
                result.append(patch)
            continue
        if patch == {"$patch": "replace"}:
            result = []
            continue
        wanted = [patch.get(k) for k in keys]
        index = next((i for i, item in enumerate(result) if [item.get(k) for k in keys] == wanted), None)
        if patch.get("$patch") == "delete":
            if index is not None:
                del result[index]
        elif index is None:
            result.append({k: clone(v) for k, v in patch.items() if not k.startswith("$")})
        else:
            result[index] = strategic_merge(result[index], patch, list_keys, path)
    return result


def json_patch(document: Json, operations: Sequence[Json]) -> Json:
    """RFC 6902. Raises PatchError, with ``unmet`` when the patch is sound but this document does not fit it.

    As the server's library (evanphx/json-patch v4) does, an absent member of an object can be replaced, and tests
    equal to null.
    """
    result = clone(document)
    for operation in operations:
        if not isinstance(operation, dict):
            raise PatchError(f"a JSON patch is a list of operations, not of {type(operation).__name__}")
        result = _apply_operation(result, operation)
    return result


def _apply_operation(document: Json, operation: dict[str, Json]) -> Json:
    op = operation.get("op")
    path = _pointer(operation.get("path"))
    match op:
        case "add" | "replace" | "test":
            if "value" not in operation:
                raise PatchError(f"operation {op!r} needs a value")
            value = operation["value"]
            if op == "test":
                if _lookup(document, path, missing_is_null=True) != value:
                    raise PatchError(f"testing value {operation['path']} failed", unmet=True)
                return document
            if op == "replace":
                _lookup(document, path, missing_is_null=True)
                return _set(document, path, clone(value), insert=False)
            return _set(document, path, clone(value), insert=True)
        case "remove":
            return _remove(document, path)
        case "move" | "copy":
            source = _pointer(operation.get("from"))
            value = clone(_lookup(document, source))
            if op == "move":
                if path[: len(source)] == source and len(path) > len(source):
                    raise PatchError("a value cannot be moved into itself")
                document = _remove(document, source)
            return _set(document, path, value, insert=True)
    raise PatchError(f"unknown operation {op!r}")


def _pointer(text: Json) -> list[str]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise PatchError(f"{text!r} is not a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _index(items: list[Json], part: str, *, end_allowed: bool) -> int:
    if end_allowed and part == "-":
        return len(items)
    if not part.isdigit() or (len(part) > 1 and part[0] == "0") or int(part) >= len(items) + end_allowed:
        raise PatchError(f"index {part!r} is not in a list of {len(items)}", unmet=True)
    return int(part)


def _lookup(document: Json, path: Sequence[str], *, missing_is_null: bool = False) -> Json:
    found = document
    for depth, part in enumerate(path):
        if isinstance(found, list):
            found = found[_index(found, part, end_allowed=False)]
        elif isinstance(found, dict) and part in found:
            found = found[part]
        elif missing_is_null and isinstance(found, dict) and depth == len(path) - 1:
            return None
        else:
            raise PatchError(f"there is no value at /{'/'.join(path[: depth + 1])}", unmet=True)
    return found


def _set(document: Json, path: Sequence[str], value: Json, *, insert: bool) -> Json:
    if not path:
        return value
    parent = _lookup(document, path[:-1])
    last = path[-1]
    if isinstance(parent, list):
        index = _index(parent, last, end_allowed=insert)
        parent[index : index + (not insert)] = [value]
    elif isinstance(parent, dict):
        parent[last] = value
    else:
        raise PatchError(f"/{'/'.join(path[:-1])} is not an object or a list", unmet=True)
    return document


def _remove(document: Json, path: Sequence[str]) -> Json:
    if not path:
        raise PatchError("the whole document cannot be removed")
    parent = _lookup(document, path[:-1])
    _lookup(document, path)
    if isinstance(parent, list):
        del parent[_index(parent, path[-1], end_allowed=False)]
    else:
        del parent[path[-1]]
    return document
