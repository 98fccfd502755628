"""At most one operation per claim at a time; whoever asks for the same again joins the one under way.

The kubelet repeats calls (after its deadline, after its own restart, to an old and a new plugin), and an unprepare may
come while the prepare still runs: then it goes after it, and is joined by its own repetitions.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Generic, TypeVar

from kubelet_plugin.claims.model import ClaimRef
from kubelet_plugin.telling.failures import Operation

Answer = TypeVar("Answer")


class Flight(Generic[Answer]):
    """One operation on one claim. ``step`` says what it is doing, for those who do not want to wait any longer."""

    def __init__(self, operation: Operation, ref: ClaimRef, after: Flight[Answer] | None) -> None:
        self.operation = operation
        self.ref = ref
        self.after = after  # must land first
        self.step = "waiting to start"
        self._lock = threading.Lock()
        self._is_late = False  # somebody did not wait for the answer
        self._landed = threading.Event()
        self._answer: Answer

    def progress(self, step: str) -> None:
        self.step = step

    def wait(self, timeout: float | None) -> bool:
        """Whether it has landed within ``timeout`` seconds."""
        return self._landed.wait(timeout)

    def give_up(self) -> bool:
        """Stop waiting for the answer; False when it has just come."""
        with self._lock:
            self._is_late = not self._landed.is_set()
            return self._is_late

    @property
    def answer(self) -> Answer:
        """Only once it has landed."""
        return self._answer

    def land(self, answer: Answer) -> bool:
        """Give the answer; tells whether somebody had given up."""
        with self._lock:
            self._answer = answer
            self.after = None
            self._landed.set()
            return self._is_late


class Flights(Generic[Answer]):
    """All operations under way, by claim UID. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, Flight[Answer]] = {}

    def join(
        self, operation: Operation, refs: Sequence[ClaimRef]
    ) -> tuple[dict[str, Flight[Answer]], list[Flight[Answer]]]:
        """The flight of each claim by UID, and those among them that are new and have to be flown by the caller."""
        flights: dict[str, Flight[Answer]] = {}
        new: list[Flight[Answer]] = []
        with self._lock:
            for ref in refs:
                latest = self._latest.get(ref.uid)
                if latest is None or latest.operation is not operation:
                    latest = Flight(operation, ref, after=latest)
                    self._latest[ref.uid] = latest
                    new.append(latest)
                flights[ref.uid] = latest
        return flights, new

    def land(self, flight: Flight[Answer], answer: Answer) -> bool:
        """Give the answer to everybody who waits; tells whether somebody had given up. Later calls start anew."""
        with self._lock:
            if self._latest.get(flight.ref.uid) is flight:
                del self._latest[flight.ref.uid]
        return flight.land(answer)

    def under_way(self) -> list[Flight[Answer]]:
        with self._lock:
            return list(self._latest.values())
