"""Which work does not get on: a call into the driver that does not return. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kubelet_plugin.claims.lock_names import gpu_of
from kubelet_plugin.claims.model import ClaimRef
from kubelet_plugin.prepare.pilot import ClaimFlight


@dataclass(frozen=True, slots=True)
class StuckWork:
    """One operation that has been at ``step`` for ``seconds``. ``gpus``: UUIDs of those that it holds."""

    operation: str
    claim: ClaimRef
    step: str
    seconds: float
    gpus: tuple[str, ...]
    waiting: int  # operations of other claims that wait for it

    def __str__(self) -> str:
        which = f"GPU {', '.join(self.gpus)} does not answer" if self.gpus else "no answer"
        others = f"; {self.waiting} other claims wait for it" if self.waiting else ""
        return (
            f"{which}: {self.operation} of claim {self.claim} has been at step '{self.step}' for {self.seconds:.0f} s"
            f"{others}"
        )


def find_stuck(flights: Iterable[ClaimFlight], seconds: float, now: float) -> tuple[StuckWork, ...]:
    """The longest first. What only waits for a lock or for an earlier operation is not stuck itself."""
    under_way = tuple(flights)
    found = (
        StuckWork(
            flight.operation,
            flight.ref,
            flight.step,
            now - flight.since,
            tuple(sorted({gpu for gpu in map(gpu_of, flight.holds) if gpu is not None})),
            sum(other.waits_for in flight.holds for other in under_way),
        )
        for flight in under_way
        if flight.holds and not flight.waits_for and now - flight.since > seconds
    )
    return tuple(sorted(found, key=lambda each: -each.seconds))
