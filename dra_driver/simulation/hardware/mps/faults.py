"""The faults of the state file, played by a daemon: it is slow, does not answer, or dies. Read at every request."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from dra_driver.simulation.hardware.mps.devices import State, visible

_START = "start"
_EVERYTHING = "*"
_FOREVER = 3600.0


class Played:
    """The faults of the daemon that has the devices of ``names`` (CUDA_VISIBLE_DEVICES). ``sleep`` plays delays."""

    def __init__(self, state: State, names: str | None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._state = state
        self._names = names
        self._sleep = sleep

    def at_start(self) -> None:
        """Take as long as the daemon takes to start; or never, or die."""
        self._sleep(max((fault.get("startSeconds", 0.0) for fault in self._now()), default=0.0))
        self._die_of(_START)
        while any(_START in fault.get("hang", ()) for fault in self._now()):
            self._sleep(_FOREVER)

    def before(self, name: str) -> None:
        """Before the request ``name`` is answered."""
        self._sleep(max((fault.get("answerSeconds", 0.0) for fault in self._now()), default=0.0))
        self._die_of(name)

    def hangs(self, name: str) -> bool:
        hanging = {each for fault in self._now() for each in fault.get("hang", ())}
        return name in hanging or (_EVERYTHING in hanging and name != "SIGTERM")

    def _die_of(self, name: str) -> None:
        if any(name in fault.get("crash", ()) for fault in self._now()):
            os.kill(os.getpid(), signal.SIGKILL)

    def _now(self) -> tuple[dict[str, Any], ...]:
        found, _ = visible(self._state.devices(), self._names)
        return self._state.faults(frozenset(device.gpu for device in found))
