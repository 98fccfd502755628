"""Has prepared claims looked at again when the node's driver is another than it was: CDI files name the driver's files.

The start of a process does that for all claims, as far as the hardware can be read then. This is for a driver that
comes later: installed after a plugin that started without one, or reloaded under libraries that were there first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from dra_driver.errors import DriverError
from dra_driver.kube.backoff import Backoff
from dra_driver.observability.loops import Loop
from kubelet_plugin.hardware.watch import HardwareState

logger = logging.getLogger(__name__)

_AGAIN_SECONDS, _LONGEST_AGAIN_SECONDS = 5.0, 300.0
_LIMIT_SECONDS = 120.0  # the claims of one node, one file each, and the locks of their GPUs


class Watch(Protocol):
    """:class:`kubelet_plugin.hardware.watch.HardwareWatch` is one."""

    @property
    def state(self) -> HardwareState: ...
    def on_change(self, listener: Callable[[], None]) -> None: ...


class DriverChange:
    """One thread, ``driver-change``, between start and stop.

    ``put_right`` does what is not done of prepared claims; False when it cannot be done of some of them yet.
    """

    def __init__(self, watch: Watch, put_right: Callable[[], bool], *, again: float = _AGAIN_SECONDS) -> None:
        self._watch = watch
        self._put_right = put_right
        self._pauses = Backoff(again, max(again, _LONGEST_AGAIN_SECONDS))
        self._done_for: str | None = None
        self.loop = Loop(
            "driver-change",
            self._round,
            limit=_LIMIT_SECONDS,
            doing="looking at prepared claims after a change of the driver",
            expected=(DriverError,),
        )
        watch.on_change(self.loop.wake)

    def version(self) -> str | None:
        """The driver's, as last read; None while it cannot be read."""
        state = self._watch.state
        return None if state.problem or state.machine is None else state.machine.driver_version

    def start(self, done_for: str | None) -> None:
        """``done_for``: the driver for which all claims were put right already."""
        self._done_for = done_for
        self.loop.start()

    def stop(self, timeout: float = 5.0) -> None:
        if not self.loop.stop(timeout):
            logger.warning("prepared claims are still being looked at %.0f s after stop", timeout)

    def _round(self) -> float | None:
        version = self.version()
        if version is None or version == self._done_for:
            return None
        settled = self._put_right()
        logger.info("prepared claims follow the driver", extra={"driver": version, "settled": settled})
        if not settled:
            return self._pauses.next_delay()
        self._pauses.reset()
        self._done_for = version
        return None
