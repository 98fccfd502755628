"""String attributes within the API's 64 bytes (DeviceAttributeMaxValueLength)."""

from __future__ import annotations

from typing import Final

from dra_driver.text import first_bytes

MAX_BYTES: Final = 64


def clip(text: str) -> str:
    """The longest start of ``text`` that has at most 64 bytes in UTF-8 and no half of a character."""
    return first_bytes(text, MAX_BYTES)
