"""How the server writes a quantity that it was given: as it came where its parser takes it to be canonical, else so.

The parser keeps the text of numbers that it reads on its fast path and that look canonical to it (apimachinery,
pkg/api/resource/quantity.go, ParseQuantity), so ``1.5G`` and ``25e0`` stay while ``1500M500`` or ``1000`` do not.
"""

from __future__ import annotations

import re
from functools import lru_cache

from dra_driver.quantity import Quantity

_PARTS = re.compile(r"[+-]?0*([0-9]*)(?:\.([0-9]*))?(.*)", re.ASCII)
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]+)", re.ASCII)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_MOST_DIGITS, _MOST_BINARY_DIGITS = 18, 15  # that are sure to fit into an int64


def served(value: str | int | float) -> str:
    """What the server gives back for ``value``. Raises ValueError for what is no quantity."""
    return _served(value) if isinstance(value, str) else _text(repr(value), Quantity.parse(value))


@lru_cache(maxsize=1024)  # the devices of a node say the same few dozen again and again
def _served(text: str) -> str:
    return _text(text, Quantity.parse(text))


def _text(text: str, quantity: Quantity) -> str:
    return text if text == "0" or _is_kept(text) else str(quantity)


def _is_kept(text: str) -> bool:
    parts = _PARTS.fullmatch(text)
    if parts is None:
        return False
    number, decimals, suffix = parts[1] or "0", parts[2] or "", parts[3]
    if suffix in _BINARY:
        return not decimals and _is_kept_binary(number, _BINARY[suffix])
    exponent = _EXPONENT.fullmatch(suffix)
    scale = (_DECIMAL[suffix] if exponent is None else int(exponent[1])) - len(decimals)
    digits = number + decimals
    if len(digits) > _MOST_DIGITS or scale < _DECIMAL["n"]:
        return False
    return scale % 3 == 0 and not digits.endswith("000") and digits[0] != "0"


def _is_kept_binary(number: str, exponent: int) -> bool:
    precision = _MOST_BINARY_DIGITS - len(number) - int(exponent * 3 / 10) - 1
    return precision >= 0 and int(number) % 8 != 0
