"""Threads that do rounds until they are told to stop, and what others can see of them.

One tool for every loop of the daemons. A round that raises is logged under the loop's name and counted, and the next
one comes after a pause, so no exception ends a thread unseen. Each loop tells when its last round ended and whether it
stands still: a round lasts longer than its limit, or none was begun when one was due. Waiting for work that may never
come is not standing still.

What stands still makes a process unready and not dead: a restart mends no GPU that hangs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dra_driver.kube.backoff import Backoff

logger = logging.getLogger(__name__)

Round = Callable[[], float | None]
"""One round of work; returns the seconds until the next one, None to wait until the loop is woken."""

_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1.0, 30.0


@dataclass(frozen=True, slots=True)
class _Phase:
    """What the thread does now. ``until``: when it must have gone on to something else; None: whenever it likes."""

    working: bool
    since: float
    until: float | None


class Loop:
    """One thread named ``name`` between start and stop. It is started once.

    ``limit``: seconds that a round may take, and that it may be late, before the loop counts as standing still.
    ``doing``: what a round does, for the log. ``retry``: pauses after rounds that raise, ``expected``: what of that is
    told in one line, without a trace. ``finish``: one more round after stop() was called, and others as long as they
    return 0.
    """

    def __init__(
        self,
        name: str,
        do_round: Round,
        *,
        limit: float,
        doing: str,
        retry: Backoff | None = None,
        expected: tuple[type[Exception], ...] = (),
        finish: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._do_round = do_round
        self._limit = limit
        self._doing = doing
        self._retry = retry or Backoff(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        self._expected = expected
        self._finish = finish
        self._clock = clock
        self._wall_clock = wall_clock
        self._phase = _Phase(working=False, since=0.0, until=None)
        self._last_round = 0.0
        self._errors = 0
        self._counting = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """A second start does nothing."""
        if self._thread is None:
            self._rest(0.0)
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Have a round soon: now, or when the present one has ended. Returns at once."""
        self._wake.set()

    def request_stop(self) -> None:
        """End after the present round. Returns at once; a round may call it."""
        self._stopping.set()
        self._wake.set()

    def join(self, timeout: float) -> bool:
        """Wait for the end; False when ``timeout`` seconds were not enough. At once on the loop's own thread."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def stop(self, timeout: float) -> bool:
        """:meth:`request_stop`, then :meth:`join`. A round that hangs is left behind."""
        self.request_stop()
        return self.join(timeout)

    # -- for a round ------------------------------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def sleep(self, seconds: float) -> bool:
        """A pause within a round, which a stop ends; True when there was one."""
        return self._stopping.wait(seconds)

    def beat(self) -> None:
        """A long round shows that it goes on: its limit counts from now."""
        self._work()
        self._last_round = self._wall_clock()

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Within it a round waits for work that may never come, and nothing is late."""
        self._phase = _Phase(working=False, since=self._clock(), until=None)
        try:
            yield
        finally:
            self._work()

    def count_error(self) -> None:
        """An exception that the round itself has handled and logged."""
        with self._counting:
            self._errors += 1

    # -- for others -------------------------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        return self._thread is not None

    @property
    def errors(self) -> int:
        """How many exceptions there were so far."""
        return self._errors

    @property
    def last_round(self) -> float:
        """When the last round ended, well or not, in seconds since 1970; 0 before that."""
        return self._last_round

    def overdue(self) -> float:
        """Seconds by which the loop has missed its limit; 0 for one that does not stand still."""
        phase = self._phase
        if self._thread is None or self._stopping.is_set():
            return 0.0
        if not self._thread.is_alive():
            return max(self._clock() - phase.since, 0.001)
        return 0.0 if phase.until is None else max(0.0, self._clock() - phase.until)

    def standing_still(self) -> str | None:
        """That the loop stands still, and since when, in words; None when it does not."""
        phase = self._phase
        if not self.overdue():
            return None
        seconds = self._clock() - phase.since
        if self._thread is not None and not self._thread.is_alive():
            return f"{self.name} ended by itself {seconds:.0f} s ago; the log says why"
        if phase.working:
            return f"{self.name} stands still: {self._doing} takes {seconds:.0f} s already"
        return f"{self.name} stands still: it waits for {seconds:.0f} s, longer than it should"

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wake.clear()  # before the look at the flag: a stop sets the flag first
            stopping = self._stopping.is_set()
            if stopping and not self._finish:
                return
            pause = self._one_round()
            if stopping and pause != 0:
                return
            self._rest(pause)
            self._wake.wait(pause)

    def _one_round(self) -> float | None:
        self._work()
        try:
            pause = self._do_round()
        except self._expected as error:
            self.count_error()
            logger.warning("%s failed, trying again: %s", self._doing, error, extra={"loop": self.name})
        except Exception:
            # Thread boundary, of all loops: whatever a round does, the next one comes.
            self.count_error()
            logger.exception("%s broke, trying again", self._doing, extra={"loop": self.name})
        else:
            self._retry.reset()
            self._last_round = self._wall_clock()
            return pause
        self._last_round = self._wall_clock()
        return self._retry.next_delay()

    def _work(self) -> None:
        now = self._clock()
        self._phase = _Phase(working=True, since=now, until=now + self._limit)

    def _rest(self, pause: float | None) -> None:
        now = self._clock()
        self._phase = _Phase(working=False, since=now, until=None if pause is None else now + pause + self._limit)


def standing_still(loops: Iterable[Loop]) -> str | None:
    """Readiness: which of ``loops`` stand still, in words; None when none does."""
    return "; ".join(said for loop in loops if (said := loop.standing_still())) or None
