"""The values of the command language: percentages, sizes of memory, limits per device. Pure.

A limit of memory is a whole number with G or M after it, a percentage at most 100 and printed with one decimal place
(nvidia-cuda-mps-control(1); what it prints is from logs of NVIDIA's device plugin, where a command that sets 10 percent
answers "10.0").
"""

from __future__ import annotations

import re

_MEMORY = re.compile(r"([1-9][0-9]*)([GM])")
_FACTORS = {"G": 2**30, "M": 2**20}


class Invalid(Exception):
    """A value that is none. Its text says what would be one."""


def percentage(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 100:
        raise Invalid(f"Invalid active thread percentage {text}: a number above 0 and up to 100")
    return value


def memory(text: str) -> int:
    """In bytes."""
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise Invalid(f"Invalid memory limit {text}: a whole number followed by G or M")
    return int(match[1]) * _FACTORS[match[2]]


def memory_text(size: int) -> str:
    return f"{size // 2**30}G" if size % 2**30 == 0 else f"{size // 2**20}M"


def limits(text: str) -> dict[str, int]:
    """Of ``CUDA_MPS_PINNED_DEVICE_MEM_LIMIT``: ``0=1G,1=512M``, in bytes by device (ordinal or UUID)."""
    found: dict[str, int] = {}
    for part in text.split(","):
        device, equals, size = part.partition("=")
        if not (device and equals):
            raise Invalid(f"Invalid memory limits {text}: DEVICE=SIZE, and commas between them")
        found[device] = memory(size)
    return found


def whole(text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise Invalid(f"Invalid {what} {text}: a whole number")
    return int(text)
