"""Flies: runs the work of a flight on a thread, and keeps none while it waits for locks or for an earlier flight.

The work of a flight is a generator that yields the names of the locks it needs and is sent them once they are held::

    with (yield names):
        ...

So it reads from top to bottom, and a hundred claims that wait for a GPU which does not answer cost no thread. What does
take a thread is at most one flight for each lock, beside those that read from the API server.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable, Collection, Generator, Mapping
from functools import partial

from dra_driver.errors import DriverError, InternalError, StateError
from kubelet_plugin.claims.model import Operation, PreparedDevice
from kubelet_plugin.prepare.flight import RECOVERY, Flight
from kubelet_plugin.prepare.locks import Held, NamedLocks
from kubelet_plugin.prepare.workers import Workers

logger = logging.getLogger(__name__)

# An unprepare needs no API server, so it must not wait behind prepares that read from one which does not answer.
_MAX_THREADS = 64

Outcome = tuple[PreparedDevice, ...] | DriverError | None
ClaimFlight = Flight[Outcome]
FlightWork = Generator[Collection[str], Held, Outcome]


class Pilot:
    """``land`` is given each flight's outcome, on the thread that came to it."""

    def __init__(self, locks: NamedLocks, land: Callable[[ClaimFlight, Outcome], None]) -> None:
        self._locks = locks
        self._land = land
        self._workers: Mapping[str, Workers] = {
            operation: Workers(_MAX_THREADS, f"claim-{operation}") for operation in (*Operation, RECOVERY)
        }
        # What has been let in must not keep its locks while it waits behind those that only read.
        self._let_in = Workers(_MAX_THREADS, "claim-let-in")

    def stop(self) -> None:
        """Nothing new is begun; what waits for a thread lands now, what is under way at its next wait."""
        for workers in (*self._workers.values(), self._let_in):
            workers.stop()

    def fly(self, flight: ClaimFlight, work: Callable[[ClaimFlight], FlightWork]) -> None:
        """Begin ``work``, after the earlier flight of the same claim where there is one."""
        # The work gets the caller's context, so that its log lines carry the id of the call.
        context = contextvars.copy_context()
        workers = self._workers[flight.operation]
        go_on = partial(context.run, lambda: self._go_on(flight, context, work(flight), None))
        begin = partial(workers.submit, go_on, partial(self._land, flight))
        before = flight.after  # which stop() may take away at any moment
        if before is None:
            begin()
            return
        flight.progress(f"waiting for the {before.operation} of the same claim")
        before.once_landed(begin)

    def _go_on(
        self, flight: ClaimFlight, context: contextvars.Context, work: FlightWork, answer: Held | StateError | None
    ) -> None:
        """Until it has to wait, or to its end; the boundary of its thread."""
        try:
            while True:
                names = next(work) if answer is None else _tell(work, answer)
                answer = self._take(flight, context, work, names)
                if answer is None:
                    return
        except StopIteration as end:
            outcome: Outcome = end.value
        except DriverError as error:
            outcome = error
        except Exception as error:
            # Without an answer the kubelet would wait for its deadline, each time.
            logger.exception("unexpected error in %s", flight.operation)
            outcome = InternalError.of(error)
            work.close()  # where it was not the work that broke
        flight.holds = frozenset()
        self._land(flight, outcome)

    def _take(
        self, flight: ClaimFlight, context: contextvars.Context, work: FlightWork, names: Collection[str]
    ) -> Held | StateError | None:
        """The locks, why they cannot be had, or None: then the work goes on on another thread once they are free."""
        step, wanted = flight.step, frozenset(names)

        def waiting(name: str) -> None:
            flight.progress(f"waiting for lock {name}, which another operation holds", name)

        def then(answer: Held | StateError) -> None:
            flight.progress(step)
            if isinstance(answer, Held):
                flight.holds |= wanted
            # In a copy: the thread that asked for the lock may still be on its way out of the context.
            go_on = partial(context.copy().run, self._go_on, flight, context, work, answer)
            self._let_in.submit(go_on, partial(self._drop, flight, work, answer))

        try:
            held = self._locks.take(wanted, then, waiting)
        except StateError as error:
            return error
        if held is not None:
            flight.holds |= wanted
        return held

    def _drop(self, flight: ClaimFlight, work: FlightWork, answer: Held | StateError, why: StateError) -> None:
        """It cannot go on."""
        if isinstance(answer, Held):
            answer.release()
        work.close()  # lets go of the locks it has
        self._land(flight, why)


def _tell(work: FlightWork, answer: Held | StateError) -> Collection[str]:
    return work.throw(answer) if isinstance(answer, StateError) else work.send(answer)
