"""When the kubelet has a driver and when it has none, by its own log.

It looks at its registration sockets once a second, and forgets an old one a second before it takes a new one of the
same name. A start that follows a stop at once would be measured with the stop, and starts that follow each other in a
steady rhythm always at the same moment of that second.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from e2e.clusters.interface import ClusterError

PATIENCE = 60.0
_POLL_SECONDS = 0.005
_PERIOD_SECONDS = 1.0  # pkg/kubelet/pluginmanager/plugin_manager.go, loopSleepDuration
# pkg/kubelet/cm/dra/plugin/dra_plugin_manager.go
_REGISTERED, _UNREGISTERED = '"Registered DRA plugin"', '"Unregistered DRA plugin"'


def any_moment() -> None:
    """Wait for a part of the kubelet's second, a different one each time."""
    time.sleep(random.uniform(0, _PERIOD_SECONDS))  # noqa: S311 - nothing is to be kept secret


@dataclass(slots=True)
class Registrations:
    """Reads on where it has read to. ``count``: how often the kubelet has registered a driver so far."""

    log: Path
    registered: bool = False
    count: int = 0
    _read_to: int = 0
    _rest: str = ""

    def look(self) -> None:
        with self.log.open("rb") as log:
            log.seek(self._read_to)
            new = log.read()
        self._read_to += len(new)
        *lines, self._rest = (self._rest + new.decode(errors="replace")).split("\n")
        for line in lines:
            if _REGISTERED in line:
                self.registered, self.count = True, self.count + 1
            elif _UNREGISTERED in line:
                self.registered = False

    def wait_for_more(self, known: int) -> None:
        """Until more than ``known`` were counted. Raises ClusterError when that does not come."""
        self._wait(lambda: self.count > known, "the kubelet has not registered the plugin")

    def wait_for_none(self) -> None:
        """Until the kubelet has forgotten the driver that was stopped. Raises ClusterError when it does not."""
        self._wait(lambda: not self.registered, "the kubelet still has the driver that was stopped")

    def _wait(self, come: Callable[[], bool], problem: str) -> None:
        until = time.monotonic() + PATIENCE
        self.look()
        while not come():
            if time.monotonic() > until:
                raise ClusterError(f"after {PATIENCE:g} s {problem}; see {self.log}")
            time.sleep(_POLL_SECONDS)
            self.look()
