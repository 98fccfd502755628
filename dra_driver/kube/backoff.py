"""Two ways to go slowly: growing, jittered delays after failures, and a token bucket for an overall rate."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable


class Backoff:
    """Delays that double from ``initial`` to ``maximum`` seconds. Not thread-safe: one per thread.

    Each delay is spread over ``[delay * (1 - jitter), delay]``, so that clients which failed together do not return
    together. The first delay comes again after ``reset_after`` seconds of health (:meth:`ran_for`).
    """

    def __init__(
        self,
        initial: float = 0.8,
        maximum: float = 30.0,
        *,
        factor: float = 2.0,
        jitter: float = 0.5,
        reset_after: float = 60.0,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._initial = initial
        self._maximum = maximum
        self._factor = factor
        self._jitter = jitter
        self._reset_after = reset_after
        self._uniform = uniform
        self._next = initial

    def ran_for(self, seconds: float) -> None:
        """Tell how long the work went well before it failed."""
        if seconds >= self._reset_after:
            self.reset()

    def reset(self) -> None:
        self._next = self._initial

    def next_delay(self) -> float:
        """Seconds to wait before the next try; each call grows the one after it."""
        delay = self._next
        self._next = min(delay * self._factor, self._maximum)
        return delay * (1 - self._jitter * self._uniform())


class TokenBucket:
    """An overall rate of ``rate`` a second with bursts of ``burst``. Thread-safe."""

    def __init__(self, rate: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = float(burst)
        self._filled = clock()

    def reserve(self) -> float:
        """Take a token, perhaps one of the future: returns the seconds until it may be used (0 when it is there)."""
        with self._lock:
            self._refill()
            self._tokens -= 1
            return max(0.0, -self._tokens / self._rate)

    def try_take(self) -> bool:
        """Take a token if one is there now."""
        with self._lock:
            self._refill()
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def _refill(self) -> None:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
