"""Questions about the shape of a model: what lies at a location, which names and values it allows.

A location is a path of wire names and list indexes, as pydantic reports it. Used by ``strict`` for messages and by
``settings`` and the generators for tables.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Location = Sequence[int | str]


def wire_name(name: str, info: FieldInfo) -> str:
    """The name of a field on the wire."""
    return info.serialization_alias or info.alias or name


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model by wire name, in declaration order."""
    return {wire_name(name, info): info for name, info in model.model_fields.items()}


def core_type(annotation: Any) -> Any:
    """The type behind ``Annotated`` and ``| None``; a real union stays as it is."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            others = [argument for argument in get_args(annotation) if argument is not type(None)]
            if len(others) != 1:
                return annotation
            annotation = others[0]
        else:
            return annotation


def type_at(model: type[BaseModel], location: Location) -> Any:
    """The type at a location, None where the model has nothing."""
    current: Any = model
    for key in location:
        if is_model(current):
            info = fields_of(current).get(str(key))
            current = None if info is None else core_type(info.annotation)
        elif get_origin(current) in (list, dict):
            current = core_type(get_args(current)[-1])
        else:
            return None
    return current


def model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The model at a location, None where something else or nothing is."""
    found = type_at(model, location)
    return found if is_model(found) else None


def choices_at(model: type[BaseModel], location: Location) -> tuple[str, ...]:
    """The values of the closed set at a location; empty where any value goes."""
    return choices(type_at(model, location))


def choices(kind: Any) -> tuple[str, ...]:
    """The values of an enum or literal type; empty for other types."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return tuple(str(member.value) for member in kind)
    if get_origin(kind) is Literal:
        return tuple(str(value) for value in get_args(kind))
    return ()


def is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def is_map(kind: Any) -> bool:
    return get_origin(kind) is dict


def leaves(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every field that is not itself a model, with its location, in declaration order."""
    for name, info in fields_of(model).items():
        kind = core_type(info.annotation)
        if is_model(kind):
            yield from leaves(kind, (*prefix, name))
        else:
            yield (*prefix, name), info


def closest(name: str, known: Sequence[str]) -> str | None:
    """The known name that ``name`` most likely means: other case, other separators, or a slip of the pen."""
    folded = {_fold(candidate): candidate for candidate in known}
    # difflib is quadratic in the length; no name of ours is that long.
    close = difflib.get_close_matches(_fold(name[:64]), list(folded), n=1, cutoff=0.7)
    return folded[close[0]] if close else None


def _fold(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
