"""Texts within a limit of the Kubernetes API. It counts bytes of UTF-8 nearly everywhere: Go's ``len`` of a string.

Where it counts characters instead (``maxLength`` of a CRD), a text that has so many bytes at most fits as well.
"""

from __future__ import annotations

from typing import Final

# A message: of an Event (core validation, NoteLengthLimit), of a device's health (the kubelet cuts there, in the middle
# of a character if need be), and by our own choice of a NodeInventory.
MESSAGE_BYTES: Final = 1024
_MARK: Final = "…"


def first_bytes(text: str, limit: int) -> str:
    """The longest start of ``text`` that has at most ``limit`` bytes and no half of a character."""
    if len(text) <= limit and text.isascii():
        return text
    return text.encode()[:limit].decode(errors="ignore")


def shortened(text: str, limit: int = MESSAGE_BYTES) -> str:
    """``text``, or as much of its start as fits into ``limit`` bytes with the mark of a cut."""
    if len(text.encode()) <= limit:
        return text
    return first_bytes(text, limit - len(_MARK.encode())) + _MARK
