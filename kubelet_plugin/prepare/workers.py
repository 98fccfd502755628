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

from dra_driver.errors import StateError

logger = logging.getLogger(__name__)

Task = Callable[[], None]
Dropped = Callable[[StateError], None]


class Workers:
    """At most ``most`` daemon threads, made when no other one is idle. Thread-safe."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._tasks: SimpleQueue[tuple[Task, Dropped] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._stopped = False

    def submit(self, task: Task, dropped: Dropped) -> None:
        """Have it run. Else ``dropped`` is told why: at once, or by :meth:`stop`."""
        why = self._accept(task, dropped)
        if why is not None:
            dropped(why)

    def _accept(self, task: Task, dropped: Dropped) -> StateError | None:
        with self._lock:
            if self._stopped:
                return stopping()
            if self._idle:
                self._idle -= 1  # whoever takes the next task
            elif self._threads < self._most:
                try:
                    threading.Thread(target=self._run, name=f"{self._name}-{self._threads + 1}", daemon=True).start()
                    self._threads += 1
                except RuntimeError as error:  # at a limit of processes; one of those that are there takes it later
                    if not self._threads:
                        return StateError(f"no thread for it: {error}", hint="raise the pids limit of the container")
            self._tasks.put((task, dropped))
        return None

    def stop(self) -> None:
        """No new tasks; what waits for a thread is dropped, and threads end with what they are at."""
        with self._lock:
            self._stopped = True
            threads = self._threads
        left: list[Dropped] = []
        with contextlib.suppress(Empty):
            while True:
                waiting = self._tasks.get_nowait()
                left += [waiting[1]] if waiting else []
        for _ in range(threads):
            self._tasks.put(None)
        for dropped in left:
            dropped(stopping())

    def _run(self) -> None:
        while (waiting := self._tasks.get()) is not None:
            task, _dropped = waiting
            try:
                task()
            except Exception:
                # Thread boundary: tasks answer for themselves, and one that does not must not cost a thread.
                logger.exception("a task of %s broke", self._name)
            with self._lock:
                if self._tasks.empty():
                    self._idle += 1


def stopping() -> StateError:
    return StateError("the plugin is stopping", hint="its successor answers the kubelet's next call")
