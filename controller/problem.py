"""What the controller has to tell people about a node; ``reports`` tells it. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dra_driver.observability.events import EventKind


@dataclass(frozen=True, slots=True)
class Problem:
    """Something an administrator should know. ``reason`` is the Event's."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Told:
    """A condition of a NodeInventory. ``event``: the kind of the Event that goes with a change of it, which has the
    same reason; None where Events tell it otherwise. ``is_usual``: what everybody takes for granted, so it is said only
    where something else was said before."""

    type: str
    status: str
    reason: str
    message: str
    event: EventKind | None = None
    is_usual: bool = False


def some_of(names: Collection[str]) -> str:
    """The names, for a message; of many, the first."""
    listed = sorted(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
