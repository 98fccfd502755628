"""At most one operation per claim at a time; whoever asks for the same again joins the one under way.

The kubelet repeats calls (after its deadline, after its own restart, to an old and a new plugin), and an unprepare may
come while the prepare still runs: then it goes after it, and is joined by its own repetitions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from kubelet_plugin.claims.model import ClaimRef, Operation

Outcome = TypeVar("Outcome")

# What a new process does to a claim that an earlier one left; see :class:`Operation` for the others.
RECOVERY: Final = "recovery"


class Flight(Generic[Outcome]):
    """One operation on one claim. ``step`` says what it is doing, for those who do not want to wait any longer.

    ``since``: when that step began, of ``time.monotonic``. ``waits_for``: the lock it waits for, if so; ``holds``: the
    locks it has.
    """

    def __init__(self, operation: str, ref: ClaimRef, after: Flight[Outcome] | None) -> None:
        self.operation = operation
        self.ref = ref
        self.after = after  # must land first
        self.step = "waiting to start"
        self.since = time.monotonic()
        self.waits_for = ""
        self.holds: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._is_late = False  # somebody did not wait for the outcome
        self._landed = threading.Event()
        self._followers: list[Callable[[], None]] = []
        self._outcome: Outcome

    def progress(self, step: str, waits_for: str = "") -> None:
        self.step, self.since, self.waits_for = step, time.monotonic(), waits_for

    def wait(self, timeout: float | None) -> bool:
        """Whether it has landed within ``timeout`` seconds."""
        return self._landed.wait(timeout)

    def once_landed(self, follower: Callable[[], None]) -> None:
        """``follower`` is called on the thread that lands it, or at once. It must not block."""
        with self._lock:
            if not self._landed.is_set():
                self._followers.append(follower)
                return
        follower()

    def give_up(self) -> bool:
        """Stop waiting for the outcome; False when it has just come."""
        with self._lock:
            self._is_late = not self._landed.is_set()
            return self._is_late

    @property
    def outcome(self) -> Outcome:
        """Only once it has landed."""
        return self._outcome

    def land(self, outcome: Outcome) -> bool:
        """Give the outcome; tells whether somebody had given up."""
        with self._lock:
            self._outcome = outcome
            self.after = None
            followers, self._followers = self._followers, []
            self._landed.set()
            is_late = self._is_late
        for follower in followers:
            follower()
        return is_late


class Flights(Generic[Outcome]):
    """All operations under way, by claim UID. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, Flight[Outcome]] = {}
        self._under_way: set[Flight[Outcome]] = set()

    def join(
        self, operation: Operation, refs: Sequence[ClaimRef]
    ) -> tuple[dict[str, Flight[Outcome]], list[Flight[Outcome]]]:
        """The flight of each claim by UID, and those among them that are new and have to be flown by the caller."""
        flights: dict[str, Flight[Outcome]] = {}
        new: list[Flight[Outcome]] = []
        with self._lock:
            for ref in refs:
                latest = self._latest.get(ref.uid)
                if latest is None or latest.operation is not operation:
                    latest = Flight(operation, ref, after=latest)
                    self._latest[ref.uid] = latest
                    self._under_way.add(latest)
                    new.append(latest)
                flights[ref.uid] = latest
        return flights, new

    def add(self, flight: Flight[Outcome]) -> None:
        """One that nobody joins."""
        with self._lock:
            self._under_way.add(flight)

    def land(self, flight: Flight[Outcome], outcome: Outcome) -> bool:
        """Give the outcome to everybody who waits; tells whether somebody had given up. Later calls start anew."""
        with self._lock:
            self._under_way.discard(flight)
            if self._latest.get(flight.ref.uid) is flight:
                del self._latest[flight.ref.uid]
        return flight.land(outcome)

    def under_way(self) -> list[Flight[Outcome]]:
        """Those that have not landed, also the ones that another one of their claim waits for."""
        with self._lock:
            return list(self._under_way)
