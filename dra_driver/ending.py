"""Waits on the main thread for what ends a process: a signal, or a reason of its own.

The kernel gives a process's signal to any thread that takes it, and Python calls the handler on the main one. A main
thread that waits for a queue or a lock without a limit does not wake up for a signal that another thread has taken:
SIGTERM was lost now and then while threads were being started, and the process killed instead of ended in order.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")

_LOOK_SECONDS = 0.5


def wait_for_ending(endings: SimpleQueue[T]) -> T:
    """The first of ``endings``, which handlers of signals and other threads put in."""
    while True:
        try:
            return endings.get(timeout=_LOOK_SECONDS)
        except Empty:
            continue  # the handlers of signals that other threads have taken are called between two waits
