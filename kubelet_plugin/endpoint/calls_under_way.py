"""Which calls are being worked on, and until when each must have been answered.

It tells a plugin that is busy from one that is stuck: all threads may be taken by calls that wait, for a GPU or for an
API server that is away, and each of them is answered at its deadline. A call that has not been is stuck.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_GRACE_SECONDS = 10.0  # for a node whose processor is not ours for a while


class CallsUnderWay:
    """Thread-safe. ``clock`` is monotonic seconds; ``grace``: how late an answer may be before its call is stuck."""

    def __init__(self, *, grace: float = _GRACE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace = grace
        self._clock = clock
        self._lock = threading.Lock()
        self._ends: dict[object, float] = {}

    @contextmanager
    def call(self, seconds: float) -> Iterator[None]:
        """One call that has to be answered within ``seconds``."""
        key = object()
        with self._lock:
            self._ends[key] = self._clock() + seconds
        try:
            yield
        finally:
            with self._lock:
                del self._ends[key]

    def count(self) -> int:
        return len(self._ends)

    def stuck(self) -> int:
        """How many calls should have been answered long ago."""
        now = self._clock()
        with self._lock:
            return sum(now > end + self._grace for end in self._ends.values())
