"""Threads for work that may hang: as many as are needed up to a limit, and none that keeps the process from ending.

``concurrent.futures`` joins its threads at exit, so one hanging call into the driver would hold up the end of the
process until it is killed. What such a thread was at, the next process finds in the journal.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

logger = logging.getLogger(__name__)

Task = Callable[[], None]


class Workers:
    """At most ``most`` daemon threads, made when no other one is idle. Thread-safe."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._stopped = False

    def submit(self, task: Task) -> bool:
        """Have it run; False once stopped."""
        with self._lock:
            if self._stopped:
                return False
            if self._idle:
                self._idle -= 1  # whoever takes the next task
            elif self._threads < self._most:
                self._threads += 1
                threading.Thread(target=self._run, name=f"{self._name}-{self._threads}", daemon=True).start()
            self._tasks.put(task)
        return True

    def stop(self) -> None:
        """No new tasks; what waits for a thread is dropped, and threads end with what they are at."""
        with self._lock:
            self._stopped = True
            threads = self._threads
        with contextlib.suppress(Empty):
            while True:
                self._tasks.get_nowait()
        for _ in range(threads):
            self._tasks.put(None)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except Exception:
                # Thread boundary: tasks answer for themselves, and one that does not must not cost a thread.
                logger.exception("a task of %s broke", self._name)
            with self._lock:
                if self._tasks.empty():
                    self._idle += 1
