"""A queue of keys to work on, as controllers use it, and the threads that work on them.

A key is queued once however often it is added, and is never worked on by two threads at a time: added while being
worked on, it is queued again when that work is done. Failures come back after a delay that doubles per key, within an
overall rate. Time comes from an injected clock; with a fake one, ``get(timeout=0)`` hands out exactly what is due.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from dra_driver.kube.backoff import TokenBucket
from dra_driver.kube.interface import ApiError
from dra_driver.observability.logs import operation

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Thread-safe. Delays are in seconds; ``len()`` counts keys that are ready."""

    def __init__(
        self,
        name: str,
        *,
        base_delay: float = 0.05,
        max_delay: float = 60.0,
        rate: float = 10.0,
        burst: int = 100,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``base_delay`` doubles up to ``max_delay`` per failure of a key; ``rate`` and ``burst`` bound all keys."""
        self._name = name
        self._base_delay = base_delay
        self._max_delay = max_delay
        self._bucket = TokenBucket(rate, burst, clock=clock)
        self._clock = clock
        self._changed = threading.Condition()
        self._ready: deque[K] = deque()
        self._queued: set[K] = set()  # in _ready, or to be put there when its present work is done
        self._working: set[K] = set()
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0
        self._failures: dict[K, int] = {}
        self._shut_down = False
        self.retries_total = 0

    @property
    def name(self) -> str:
        return self._name

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K) -> None:
        """Queue ``key`` unless it is queued already."""
        with self._changed:
            self._add(key)

    def add_after(self, key: K, delay: float) -> None:
        """Queue ``key`` in ``delay`` seconds; of several delays the shortest counts."""
        with self._changed:
            if self._shut_down:
                return
            if delay <= 0:
                self._add(key)
                return
            due = self._clock() + delay
            if self._due.get(key, float("inf")) <= due:
                return
            self._due[key] = due
            self._sequence += 1
            heapq.heappush(self._heap, (due, self._sequence, key))
            self._changed.notify_all()

    def add_rate_limited(self, key: K) -> None:
        """Queue ``key`` again after a failure: later each time, until :meth:`forget`."""
        with self._changed:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            self.retries_total += 1
        # 2**64 times any base delay is beyond every maximum; a larger power would overflow a float.
        delay = min(self._base_delay * 2.0 ** min(failures, 64), self._max_delay)
        self.add_after(key, max(delay, self._bucket.reserve()))

    def forget(self, key: K) -> None:
        """The key's work went well: its next failure starts with the shortest delay."""
        with self._changed:
            self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """Failures of ``key`` in a row."""
        with self._changed:
            return self._failures.get(key, 0)

    def get(self, timeout: float | None = None) -> K | None:
        """The next key, to be given back with :meth:`done`; None after ``timeout`` seconds, or when shut down."""
        give_up = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                self._move_due()
                if self._ready:
                    key = self._ready.popleft()
                    self._queued.discard(key)
                    self._working.add(key)
                    return key
                if self._shut_down:
                    return None
                waits = []
                if self._heap:
                    waits.append(max(0.0, self._heap[0][0] - self._clock()))
                if give_up is not None:
                    remaining = give_up - time.monotonic()
                    if remaining <= 0:
                        return None
                    waits.append(remaining)
                self._changed.wait(min(waits) if waits else None)

    def done(self, key: K) -> None:
        """The work on ``key`` ended, well or not. If it was added meanwhile, it is ready now."""
        with self._changed:
            self._working.discard(key)
            if key in self._queued:
                self._ready.append(key)
            self._changed.notify_all()

    def shut_down(self) -> None:
        """Accept nothing more, drop what is delayed; what is ready is still handed out, then ``get`` returns None."""
        with self._changed:
            self._shut_down = True
            self._due.clear()
            self._heap.clear()
            self._changed.notify_all()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing is ready or being worked on; False when ``timeout`` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._ready and not self._working, timeout)

    def _add(self, key: K) -> None:
        if self._shut_down or key in self._queued:
            return
        self._queued.add(key)
        if key not in self._working:
            self._ready.append(key)
            self._changed.notify_all()  # one may be a join(), which takes no key

    def _move_due(self) -> None:
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:  # otherwise an earlier delay replaced this one
                del self._due[key]
                self._add(key)


class Workers(Generic[K]):
    """``count`` threads, named ``<name>-<i>``, that call ``handler`` with each key of ``queue``.

    The handler returns None, or the seconds after which it wants the key again. If it raises, the key comes back later
    and later. Each call is an operation of its own in the log.
    """

    def __init__(self, queue: WorkQueue[K], handler: Callable[[K], float | None], *, count: int, name: str) -> None:
        self._queue = queue
        self._handler = handler
        self._count = count
        self._name = name
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._threads = [
            threading.Thread(target=self._run, name=f"{self._name}-{number}", daemon=True)
            for number in range(self._count)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """1. shut the queue down; 2. let the threads finish what is ready; 3. give up after ``timeout`` seconds."""
        self._queue.shut_down()
        give_up = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, give_up - time.monotonic()))
            if thread.is_alive():
                logger.warning("%s still works after %.0f s of stopping", thread.name, timeout)
        self._threads = []

    def _run(self) -> None:
        while True:
            key = self._queue.get()
            if key is None:
                return
            try:
                with operation():
                    again = self._handler(key)
                self._queue.forget(key)
                if again is not None:
                    self._queue.add_after(key, again)
            except ApiError as error:
                logger.warning("work on %s failed, trying again: %s", key, error, extra={"queue": self._queue.name})
                self._queue.add_rate_limited(key)
            except Exception:
                # Thread boundary: whatever one key does, it is tried again and the others go on.
                logger.exception("work on %s failed", key, extra={"queue": self._queue.name})
                self._queue.add_rate_limited(key)
            finally:
                self._queue.done(key)
