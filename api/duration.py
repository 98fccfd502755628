"""Durations in configuration: seconds in Python, Go's notation ("15s", "1m30s", "250ms") on the wire."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from api.strict import show

MAX_SECONDS = 366 * 24 * 3600.0

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}
_PART = r"[0-9]+(?:\.[0-9]+)?(?:ms|h|m|s)"
PATTERN = rf"^(0|(?:{_PART})+)$"
_WHOLE = re.compile(PATTERN[1:-1])
_PARTS = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|h|m|s)")


def parse(text: str) -> float:
    """Seconds. ValueError when the text is no duration, or longer than a year."""
    if len(text) > 32 or not _WHOLE.fullmatch(text):
        raise ValueError("not a duration")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PARTS.findall(text))
    if not math.isfinite(seconds) or seconds > MAX_SECONDS:
        raise ValueError("longer than a year")
    return seconds


def render(seconds: float) -> str:
    """The shortest notation that :func:`parse` reads back to the millisecond: "1m30s", "250ms", "0s"."""
    rest = round(seconds * 1000)
    out = ""
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        out += f"{count}{unit}" if count else ""
    return out or "0s"


def _duration(value: object) -> float:
    try:
        if isinstance(value, str):
            return parse(value)
    except ValueError:
        pass
    context = {"given": show(value), "hint": 'write it like "15s", "1m30s" or "250ms"'}
    raise PydanticCustomError("problem", "must be a duration, not {given}", context)


# Defaults in models are seconds; pydantic does not validate defaults.
Duration = Annotated[
    float,
    BeforeValidator(_duration),
    PlainSerializer(render, return_type=str),
    WithJsonSchema({"type": "string", "pattern": PATTERN}),
]
