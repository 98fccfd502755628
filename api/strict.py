"""Strict decoding of JSON-shaped data into our models: every problem at once, each with path, value and remedy.

:func:`decode` never raises anything but :class:`DecodeError`, whatever it is given: data is first copied into plain
JSON types within limits that any real object is far below (:func:`plain`), then pydantic checks the copy, and its
errors become :class:`Problem` values that use the words of the wire format. Only wire names (camelCase) are accepted.

Validators of our models raise ``PydanticCustomError("problem", "must be ..., not {given}", {"hint": ...})`` or
ValueError; both are passed on as they are.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from api import shape

MAX_DEPTH = 32
MAX_VALUES = 20_000  # opaque parameters are at most 10 KiB on the API server
MAX_SHOWN_PROBLEMS = 20
MAX_SHOWN_TEXT = 80

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[int | str, ...]

_SIMPLE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. ``path`` is as a person would find it: "spec.sharing.strategy"; "" is the whole."""

    path: str
    value: object = field(compare=False)
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.message}, {self.hint}" if self.hint else self.message
        return f"{self.path}: {text}" if self.path else text


class DecodeError(Exception):
    """The data cannot be used. ``problems`` holds everything found; the text names the first twenty."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        shown = [str(problem) for problem in self.problems[:MAX_SHOWN_PROBLEMS]]
        if len(self.problems) > MAX_SHOWN_PROBLEMS:
            shown.append(f"and {len(self.problems) - MAX_SHOWN_PROBLEMS} more problems")
        super().__init__("; ".join(shown))


def decode(model: type[Model], data: object, *, path: str = "") -> Model:
    """``data`` as an instance of ``model``. Raises :class:`DecodeError` with every problem below ``path``."""
    try:
        # by_name is off: a Python field name is an unknown field to everybody else.
        return model.model_validate(plain(data, path), by_alias=True, by_name=False)
    except ValidationError as error:
        raise DecodeError(problems_of(error, model, path)) from None


def plain(data: object, path: str = "") -> Any:
    """A copy of ``data`` made of dict, list, str, int, float, bool and None. Raises :class:`DecodeError`.

    Refused are other types, keys that are not text, NaN and infinities, and more than MAX_DEPTH levels or MAX_VALUES
    values (which also ends a walk through a structure that contains itself).
    """
    copier = _Copier(path)
    copy = copier.copy(data, path, 0)
    if copier.problems:
        raise DecodeError(copier.problems)
    return copy


class _Copier:
    """The walk behind :func:`plain`: collects problems, but gives up at once on what is too deep or too large."""

    def __init__(self, root: str) -> None:
        self.problems: list[Problem] = []
        self._root = root
        self._values = 0
        self._given_up = False

    def copy(self, data: object, path: str, depth: int) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            self._give_up(f"more than {MAX_VALUES} values", "make it smaller")
        if self._given_up:
            return None
        if data is None or isinstance(data, bool):
            return data
        if isinstance(data, str):
            return str.__str__(data)
        if isinstance(data, int):
            return int.__int__(data)
        if isinstance(data, float):
            return self._number(float.__float__(data), path)
        if isinstance(data, dict | list) and depth >= MAX_DEPTH:
            self._give_up(f"nested deeper than {MAX_DEPTH} levels", "make it flatter")
            return None
        if isinstance(data, dict):
            return self._object(data, path, depth)
        if isinstance(data, list):
            return [self.copy(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(list.__iter__(data))]
        self._refuse(path, data, f"must be a JSON value, not {show(data)}")
        return None

    def _number(self, number: float, path: str) -> float:
        if not math.isfinite(number):
            self._refuse(path, number, "must be a finite number")
        return number

    def _object(self, data: dict[Any, Any], path: str, depth: int) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for key, value in dict.items(data):
            if self._given_up:
                break
            if isinstance(key, str):
                name = str.__str__(key)
                copied[name] = self.copy(value, join(path, name), depth + 1)
            else:
                self._refuse(path, data, f"keys must be text, not {show(key)}", "put it in quotes")
        return copied

    def _give_up(self, message: str, hint: str) -> None:
        if not self._given_up:
            self._refuse(self._root, None, message, hint)
        self._given_up = True

    def _refuse(self, path: str, value: object, message: str, hint: str = "") -> None:
        self.problems.append(Problem(path, value, message, hint))


def join(path: str, *keys: int | str) -> str:
    """``join("spec", "a", 0, "b.c")`` is ``spec.a[0]["b.c"]``."""
    for key in keys:
        if isinstance(key, int):
            path = f"{path}[{key}]"
        elif _SIMPLE_KEY.fullmatch(key) and len(key) <= MAX_SHOWN_TEXT:
            path = f"{path}.{key}" if path else key
        else:
            path = f"{path}[{_quote(key)}]"
    return path


def show(value: object) -> str:
    """A value for an error message: short whatever it is, and never its inside."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, int):
        return int.__repr__(value) if value.bit_length() <= 64 else f"a number of {value.bit_length()} bits"
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return f"a Python {type(value).__name__}"


def _quote(text: str) -> str:
    return json.dumps(text if len(text) <= MAX_SHOWN_TEXT else text[: MAX_SHOWN_TEXT - 3] + "...")


def problems_of(error: ValidationError, model: type[BaseModel], path: str = "") -> list[Problem]:
    """pydantic's errors about ``model`` in our words, in the order of its fields."""
    found = error.errors(include_url=False)
    meant = {location for details in found for location in _misspelt(details, model)}
    return [_problem(details, model, path) for details in found if not _explained(details, meant)]


def one_of(allowed: Sequence[str], given: object) -> tuple[str, str]:
    """Message and hint for a value outside a closed set."""
    if len(allowed) == 1:
        message = f"must be {allowed[0]}, not {show(given)}"
    else:
        message = f"must be one of {', '.join(allowed)}, not {show(given)}"
    close = shape.closest(given, allowed) if isinstance(given, str) else None
    return message, f"did you mean {close}?" if close else ""


def _misspelt(details: ErrorDetails, model: type[BaseModel]) -> Iterator[Location]:
    """The field that an unknown one probably was meant to be."""
    if details["type"] == "extra_forbidden":
        parent = shape.model_at(model, details["loc"][:-1])
        close = shape.closest(str(details["loc"][-1]), list(shape.fields_of(parent))) if parent else None
        if close is not None:
            yield (*details["loc"][:-1], close)


def _explained(details: ErrorDetails, meant: Collection[Location]) -> bool:
    """A field that is missing because its name was misspelt is one slip, and told as that."""
    return details["type"] == "missing" and details["loc"] in meant


def _problem(details: ErrorDetails, model: type[BaseModel], path: str) -> Problem:
    location: Location = details["loc"]
    if location[-1:] == ("[key]",) and shape.is_map(shape.type_at(model, location[:-2])):
        location = location[:-1]  # pydantic's mark after a map's key: the error is about the key itself
    message, hint = _words(details, model, location)
    value = None if details["type"] == "missing" else details["input"]
    return Problem(join(path, *location), value, message, hint)


# pydantic's error type -> what the value should have been.
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def _words(details: ErrorDetails, model: type[BaseModel], location: Location) -> tuple[str, str]:
    """Message and hint of one error."""
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown field", _unknown_field_hint(model, location)
    if kind == "missing":
        choices = shape.choices_at(model, location)
        return "required", f"one of {', '.join(choices)}" if choices else ""
    if kind in ("enum", "literal_error"):
        return one_of(shape.choices_at(model, location), value)
    if kind == "too_short":
        least = context["min_length"]
        return f"must have at least {'one entry' if least == 1 else f'{least} entries'}", ""
    if kind == "too_long":
        return f"must have at most {context['max_length']} entries", ""
    if kind == "string_too_short" and value == "":
        return "must not be empty", ""
    if kind in _EXPECTED:
        return f"must be {_EXPECTED[kind]}, not {show(value)}", ""
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"must be {words} {context[key]}, not {show(value)}", ""
    if kind == "value_error":
        return str(context["error"]), ""
    # Our own validators, and kinds that no model has needed words for yet: pydantic's sentence, which is readable.
    return details["msg"], str(context.get("hint", ""))


def _unknown_field_hint(model: type[BaseModel], location: Location) -> str:
    """What the unknown field probably was meant to be: a misspelt name, or one that belongs a level deeper."""
    name, parent = str(location[-1]), shape.model_at(model, location[:-1])
    if parent is None:
        return ""
    known = shape.fields_of(parent)
    close = shape.closest(name, list(known))
    if close is not None:
        return f"did you mean {close}?"
    for outer in known:
        inner = shape.model_at(parent, (outer,))
        if inner is not None and name in shape.fields_of(inner):
            return f"it belongs under {outer}"
    return f"known fields: {', '.join(known)}"
