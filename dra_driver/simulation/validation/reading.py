"""Small readers shared by the rules: null as absent, limits on lists, duplicates.

They rely on shapes having been checked: a list is a list, its items have their types.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from dra_driver.simulation.validation.cause import Cause, duplicate, too_many

Fields = dict[str, Any]
_Item = TypeVar("_Item")


def items(holder: Fields, name: str) -> list[Any]:
    """The objects of the list called ``name``, empty when it is null or absent; a null item reads as an empty one."""
    return [{} if item is None else item for item in holder.get(name) or []]


def strings(holder: Fields, name: str) -> list[str]:
    """The list of strings called ``name``; a null item reads as an empty string, as in Go."""
    return [item or "" for item in holder.get(name) or []]


def fields(holder: Fields, name: str) -> Fields:
    """The object or map called ``name``, empty when it is null or absent."""
    return holder.get(name) or {}


def text(holder: Fields, name: str) -> str:
    return holder.get(name) or ""


def each(
    values: Sequence[_Item],
    path: str,
    limit: int | None,
    rule: Callable[[str, _Item], Iterable[Cause]],
    *,
    key: Callable[[_Item], Hashable] | None = None,
) -> list[Cause]:
    """Causes of every item. A list beyond ``limit`` is one cause and its items are not looked at, as on the server;
    with ``key``, items of equal key are duplicates."""
    if limit is not None and len(values) > limit:
        return [too_many(path, len(values), limit)]
    causes: list[Cause] = []
    for index, value in enumerate(values):
        causes += rule(f"{path}[{index}]", value)
    if key is not None:
        causes += duplicates(values, path, key)
    return causes


def duplicates(values: Sequence[_Item], path: str, key: Callable[[_Item], Hashable]) -> list[Cause]:
    seen: set[Hashable] = set()
    causes: list[Cause] = []
    for index, value in enumerate(values):
        identity = key(value)
        if identity in seen:
            causes.append(duplicate(f"{path}[{index}]", identity))
        seen.add(identity)
    return causes
