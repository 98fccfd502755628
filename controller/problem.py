"""What the controller has to tell people about a node; ``reports`` tells it. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Something an administrator should know. ``reason`` is the Event's."""

    reason: str
    message: str


def some_of(names: Collection[str]) -> str:
    """The names, for a message; of many, the first."""
    listed = sorted(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
