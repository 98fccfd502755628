"""How often the devices of one pool may change places. Reordering packs claims better; it is never urgent.

Each time it costs a write of each slice of which another device should be the next one, four or five at most on a node
with eight GPUs, and every scheduler reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from api.mig_policy import MigPacking

REORDER_SECONDS = 30.0


class Reorder(Enum):
    """Whether devices change places for what is in use (``dra_driver.devices.reordering``)."""

    NEVER = "never"  # the order is fixed, and each GPU has its own slice
    LATER = "later"  # as published, for now
    NOW = "now"


@dataclass(slots=True)
class ReorderPace:
    """One pool's; belongs to the worker that has the node's key. Times are those of a monotonic clock."""

    last: float | None = None

    def at(self, now: float, packing: MigPacking) -> Reorder:
        if packing is MigPacking.PER_GPU:
            return Reorder.NEVER
        return Reorder.NOW if self.seconds_left(now) <= 0 else Reorder.LATER

    def seconds_left(self, now: float) -> float:
        """Until the next one is allowed."""
        return 0.0 if self.last is None else self.last + REORDER_SECONDS - now

    def took_place(self, now: float) -> None:
        self.last = now
