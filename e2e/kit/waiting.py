"""Waiting for something to become true, with a sentence when it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.1


class TimedOut(AssertionError):
    """What was waited for did not come in time; the message says what was seen last."""


class NotYet(Exception):
    """Raised by what is waited for: not so far; the message says what is seen instead."""


def eventually(look: Callable[[], T], timeout: float, *, poll: float = POLL_SECONDS) -> T:
    """What ``look`` returns once it stops raising :class:`NotYet`. Raises :class:`TimedOut` with its last words."""
    __tracebackhide__ = True  # pytest shows who waited, not this loop
    deadline = time.monotonic() + timeout
    while True:
        try:
            return look()
        except NotYet as error:
            if time.monotonic() > deadline:
                raise TimedOut(f"after {timeout:.0f} s: {error}") from None
        time.sleep(poll)


def holds_for(look: Callable[[], None], seconds: float, *, poll: float = POLL_SECONDS) -> None:
    """``look`` must not raise during ``seconds``: for what must *not* happen."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        look()
        time.sleep(poll)
    look()
