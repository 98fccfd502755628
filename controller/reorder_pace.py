"""How often the devices of one pool may change places. Reordering packs claims better; it is never urgent.

Each time it costs a write of each slice of which another device should be the next one, four or five at most on a node
with eight GPUs. An API server has 25 ms of work with one, and every scheduler reads it. So pools take turns, one after
the other in the whole cluster: what is scheduled meanwhile never waits behind more than one pool's slices.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from api.mig_policy import MigPacking
from dra_driver.kube.backoff import TokenBucket

REORDER_SECONDS = 30.0
SETTLE_SECONDS = 1.0  # after a change: claims that come together are one write
POOLS_A_SECOND = 1.0


class Reorder(Enum):
    """Whether devices change places for what is in use (``dra_driver.devices.reordering``)."""

    NEVER = "never"  # the order is fixed, and each GPU has its own slice
    LATER = "later"  # as published, for now
    NOW = "now"


@dataclass(slots=True)
class ReorderPace:
    """One pool's; belongs to the worker that has the node's key. Times are those of a monotonic clock."""

    last: float | None = None
    turn: float | None = None

    def at(self, now: float, packing: MigPacking) -> Reorder:
        if packing is MigPacking.PER_GPU:
            return Reorder.NEVER
        return Reorder.NOW if self.turn is not None and self.turn <= now else Reorder.LATER

    def wish(self, now: float, turns: TokenBucket) -> float:
        """A better order is known: after how many seconds to look again. ``turns`` is shared by all pools."""
        if self.turn is None:
            too_soon = 0.0 if self.last is None else self.last + REORDER_SECONDS - SETTLE_SECONDS - now
            if too_soon > 0:
                return too_soon
            self.turn = now + max(SETTLE_SECONDS, turns.reserve())
        return max(self.turn - now, 0.0)

    def had_turn(self, now: float, *, reordered: bool) -> None:
        """It was this pool's turn, and there may have been nothing to do any more."""
        self.turn = None
        if reordered:
            self.last = now
