"""Memory sizes as Kubernetes quantities ("10Gi", "500M", 1073741824), as far as our configuration kinds need them.

The full quantity, with arithmetic and canonical form, is the driver's; this module only says whether a text is a
quantity (grammar of apimachinery's resource.Quantity) and how many bytes it means.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from api.strict import show

MIB = 1024**2
MAX_LENGTH = 64
MAX_EXPONENT = 99

# What a pattern can say of a size of 1Mi and more: it is above nothing.
_PATTERN = r"^\+?(0*[1-9][0-9]*(\.[0-9]*)?|0*\.[0-9]*[1-9][0-9]*)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))"
    r"(?:(?P<binary>[KMGTPE])i|(?P<decimal>[numkMGTPE])|[eE](?P<exponent>[+-]?[0-9]+))?"
)
_DECIMAL_POWERS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def in_bytes(text: str) -> int:
    """The bytes a quantity means, a fraction rounded up (Quantity.Value). ValueError when it is no quantity."""
    match = _QUANTITY.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if match is None:
        raise ValueError("not a quantity")
    size = Fraction(match["number"])
    if match["binary"]:
        size *= 1024 ** ("KMGTPE".index(match["binary"]) + 1)
    elif match["decimal"]:
        size *= Fraction(10) ** _DECIMAL_POWERS[match["decimal"]]
    elif match["exponent"]:
        exponent = int(match["exponent"])
        if abs(exponent) > MAX_EXPONENT:
            raise ValueError("not a quantity of this world")
        size *= Fraction(10) ** exponent
    return -(-size.numerator // size.denominator)


def _limit(value: object) -> str:
    """A memory limit as text. Numbers are taken too, as Quantity's JSON decoding does."""
    text = value if isinstance(value, str) else _number_text(value)
    context = {"given": show(value), "hint": 'write it like "512Mi" or "10Gi"'}
    try:
        size = in_bytes(text)
    except ValueError:
        raise PydanticCustomError("problem", "must be a quantity of memory, not {given}", context) from None
    if size < MIB:
        # MPS takes whole MiB; NVIDIA's driver finds a smaller limit only when the daemon starts.
        raise PydanticCustomError("problem", "must be at least 1Mi, not {given}", context)
    return text


def _number_text(value: object) -> str:
    """A JSON number as text; empty, which is no quantity, for anything else and for absurdly large numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if isinstance(value, int) and value.bit_length() > 128:
        return ""
    return str(value)


MemoryLimit = Annotated[
    str,
    BeforeValidator(_limit),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": MIB}, {"type": "string", "pattern": _PATTERN}]}),
]
