"""Questions to the rest of the process that may never be answered: each has one thread at most, whoever asks.

A check is a function that returns what is wrong, or None. One that hangs is told, by name and for how long, and is not
called again before it has come back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Check = Callable[[], str | None]
T = TypeVar("T")


class Hangs(Exception):
    """A function has not come back so far; the message says for how long."""


@dataclass(slots=True)
class Call(Generic[T]):
    """One call of a function, perhaps still under way."""

    began: float
    done: threading.Event = field(default_factory=threading.Event)
    result: T | None = None
    error: Exception | None = None


class Guarded(Generic[T]):
    """A function that may hang, called on a daemon thread of its own. Those who ask meanwhile share its answer."""

    def __init__(
        self, name: str, function: Callable[[], T], patience: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``patience``: seconds after which it hangs."""
        self._name = name
        self._function = function
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._last: Call[T] | None = None

    def begin(self) -> Call[T]:
        """The call that is under way, or a new one."""
        with self._lock:
            if self._last is None or self._last.done.is_set():
                call: Call[T] = Call(self._clock())
                threading.Thread(target=self._run, args=(call,), name=self._name, daemon=True).start()
                self._last = call
            return self._last

    def answer(self, call: Call[T]) -> T | None:
        """What the function returned. Raises what it raised, and :class:`Hangs`: at once when it is known to hang."""
        if not call.done.wait(max(0.0, call.began + self._patience - self._clock())):
            raise Hangs(f"has been hanging for {self._clock() - call.began:.0f} s")
        if call.error is not None:
            raise call.error
        return call.result

    def _run(self, call: Call[T]) -> None:
        try:
            call.result = self._function()
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is awaited
            call.error = error
        finally:
            call.done.set()


class Checks:
    """Checks that are asked together."""

    def __init__(self, checks: Mapping[str, Check], patience: float) -> None:
        """``patience``: seconds after which a check that has not answered hangs."""
        self._checks = {name: Guarded(f"check-{name}", check, patience) for name, check in checks.items()}

    def problems(self) -> dict[str, str]:
        """The names of the checks that found something, and what. One that raises counts as one that found that."""
        calls = {name: check.begin() for name, check in self._checks.items()}
        problems: dict[str, str] = {}
        for name, call in calls.items():
            try:
                problem = self._checks[name].answer(call)
            except Hangs as hanging:
                problem = f"the check {hanging}"
            except Exception as error:  # noqa: BLE001 - a broken check must answer 503, not drop the connection
                problem = f"check failed: {error!r}"
            if problem:
                problems[name] = problem
        return problems
