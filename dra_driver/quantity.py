"""Kubernetes quantities ("80Gi", "1500m", "1e3"), exact and in the canonical form of the API server.

The rules are those of apimachinery's resource.Quantity (pkg/api/resource/quantity.go): a number with up to nano
precision (finer input is rounded away from zero), and a format that is kept when it is printed. Relies on nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache, total_ordering

_NANOS = 10**9
_DECIMAL_SUFFIXES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SUFFIX_OF_EXPONENT = {exponent: suffix for suffix, exponent in _DECIMAL_SUFFIXES.items()}
_BINARY_SUFFIXES = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_MAX_BINARY = (2**63 - 1) * _NANOS  # apimachinery caps binary quantities at the largest int64
_MAX_EXPONENT = 999  # enough for every unit, small enough that no input can exhaust memory
_MAX_LENGTH = 1024
_NUMBER = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([A-Za-z]*)([+-]?[0-9]*)", re.ASCII)


class Format(StrEnum):
    """How a quantity is written; it does not take part in comparisons."""

    DECIMAL_SI = "DecimalSI"  # 12k
    BINARY_SI = "BinarySI"  # 12Ki
    DECIMAL_EXPONENT = "DecimalExponent"  # 12e3


@total_ordering
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Quantity:
    """An immutable quantity. Equality, order and hash go by value: ``1Gi`` equals ``1024Mi`` and ``1073741824``."""

    nanos: int
    format: Format = field(default=Format.DECIMAL_SI)

    @classmethod
    def parse(cls, text: str | int | float) -> Quantity:
        """The quantity that the API server would read from this JSON string or number.

        Raises ValueError, naming the text, for anything else: no digits, an unknown suffix ("1K"), white space,
        underscores, NaN, infinity, an exponent beyond 999.
        """
        if type(text) is str:  # as almost always
            return _parse(text)
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise ValueError(f"quantity {text!r} is neither a string nor a number")  # noqa: TRY004 - one kind of error
        if isinstance(text, int):
            return cls(text * _NANOS)
        return _parse(text if isinstance(text, str) else repr(text))

    @classmethod
    def of(cls, number: int) -> Quantity:
        """A decimal quantity of a whole number."""
        return _whole(number)

    @classmethod
    def binary(cls, number: int) -> Quantity:
        """A quantity of a whole number (bytes) that prints with Ki, Mi, Gi... where it can do so exactly."""
        return cls(number * _NANOS, Format.BINARY_SI)

    def value(self) -> int:
        """The whole number, rounded away from zero (apimachinery: Quantity.Value)."""
        return _divide_away_from_zero(self.nanos, _NANOS)

    def is_whole(self) -> bool:
        return self.nanos % _NANOS == 0

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos + other.nanos, self.format if self.nanos else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos - other.nanos, self.format if self.nanos else other.format)

    def __eq__(self, other: object) -> bool:
        return self.nanos == other.nanos if isinstance(other, Quantity) else NotImplemented

    def __lt__(self, other: Quantity) -> bool:
        return self.nanos < other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __bool__(self) -> bool:
        return self.nanos != 0

    def __str__(self) -> str:
        """The canonical form: no fraction, the largest suffix that keeps the value exact.

        As in apimachinery, a binary quantity below 1024, or with a fraction, is written as a decimal one.
        """
        if self.nanos == 0:
            return "0"
        if self.format is Format.BINARY_SI and self.is_whole() and abs(self.nanos) >= 1024 * _NANOS:
            return _binary_text(self.nanos // _NANOS)
        return _decimal_text(self.nanos, self.format)

    def __repr__(self) -> str:
        return f"Quantity({str(self)!r})"


@lru_cache(maxsize=1024)  # the devices of a node say the same few dozen again and again
def _whole(number: int) -> Quantity:
    return Quantity(number * _NANOS)


@lru_cache(maxsize=1024)
def _parse(text: str) -> Quantity:
    match = _NUMBER.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        raise ValueError(f"quantity {text[:64]!r} is not a number with an optional suffix such as 80Gi, 1500m or 1e3")
    sign, number, suffix, exponent_digits = match.groups()
    whole, _, fraction = number.partition(".")
    digits, scale = int(whole + fraction), -len(fraction)
    if suffix in ("e", "E") and exponent_digits.strip("+-"):
        quantity_format, scale, factor = Format.DECIMAL_EXPONENT, scale + _exponent(exponent_digits, text), 1
    elif exponent_digits:
        raise ValueError(f"quantity {text!r}: an exponent is written as e3 or E3")
    elif suffix in _DECIMAL_SUFFIXES:
        quantity_format, scale, factor = Format.DECIMAL_SI, scale + _DECIMAL_SUFFIXES[suffix], 1
    elif suffix in _BINARY_SUFFIXES:
        quantity_format, factor = Format.BINARY_SI, 1024 ** _BINARY_SUFFIXES.index(suffix)
    else:
        raise ValueError(f"quantity {text!r}: unknown suffix {suffix!r}; use n u m k M G T P E or Ki Mi Gi Ti Pi Ei")
    nanos = _scale_up(digits * factor, scale + 9)
    if quantity_format is Format.BINARY_SI:
        nanos = min(nanos, _MAX_BINARY)
        if 0 < nanos < _NANOS:
            quantity_format = Format.DECIMAL_SI
    return Quantity(-nanos if sign == "-" else nanos, quantity_format)


def _exponent(digits: str, text: str) -> int:
    exponent = int(digits) if len(digits) <= 8 else _MAX_EXPONENT + 1
    if abs(exponent) > _MAX_EXPONENT:
        raise ValueError(f"quantity {text!r}: the exponent is beyond {_MAX_EXPONENT}")
    return exponent


def _scale_up(number: int, exponent: int) -> int:
    """``number * 10**exponent``, rounded away from zero: who asks for a little gets a little, never nothing."""
    return number * 10**exponent if exponent >= 0 else _divide_away_from_zero(number, 10**-exponent)


def _divide_away_from_zero(number: int, divisor: int) -> int:
    return -(-number // divisor) if number >= 0 else number // divisor


def _binary_text(number: int) -> str:
    power = 0
    while power < len(_BINARY_SUFFIXES) - 1 and number % 1024 == 0:
        number //= 1024
        power += 1
    return f"{number}{_BINARY_SUFFIXES[power]}"


@lru_cache(maxsize=1024)
def _decimal_text(nanos: int, quantity_format: Format) -> str:
    number, exponent = nanos, -9
    while number % 1000 == 0:
        number //= 1000
        exponent += 3
    if exponent > 18:  # no suffix says that; apimachinery leaves it out, which is another number (measured on 1.37.2)
        quantity_format = Format.DECIMAL_EXPONENT
    if quantity_format is Format.DECIMAL_EXPONENT:
        return f"{number}e{exponent}" if exponent else str(number)
    return f"{number}{_SUFFIX_OF_EXPONENT[exponent]}"
