"""Asks for a reading of the hardware as soon as a GPU reports a change, on a thread of its own.

The readings of ``hardware_watch`` notice every change in the end; this makes it sooner. It waits only while readings
succeed, so that a failing driver can be begun with from nothing, and registers anew when the GPUs or their MIG modes
change, since a reset ends a registration.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from dra_driver.errors import HardwareError
from dra_driver.hardware.nvml import GpuEvent
from dra_driver.kube.backoff import Backoff
from dra_driver.observability.loops import Loop
from kubelet_plugin.hardware.watch import HardwareState

logger = logging.getLogger(__name__)

# So long a stop may take, which is asked for before all else stops. Each end of a wait without an event costs processor
# time on every node: four in a second were a quarter of what an idle plugin used.
_WAIT_SECONDS = 0.5
_LOOK_SECONDS = 0.25  # for hardware that can be read
# Changes of MIG that follow within it cause one reading together, after it: a claim's own are two or three, and reading
# all GPUs while it is prepared would slow it down.
_SETTLE_SECONDS = 0.5
_RETRY_SECONDS = 5.0
_LIMIT_SECONDS = 60.0  # to register at all GPUs; each wait shows that it goes on


class EventSource(Protocol):
    """:class:`dra_driver.hardware.nvml.GpuEvents` is one."""

    def open(self) -> int: ...
    def wait(self, seconds: float) -> GpuEvent | None: ...
    def close(self) -> None: ...


class Watch(Protocol):
    """:class:`kubelet_plugin.hardware.watch.HardwareWatch` is one."""

    @property
    def state(self) -> HardwareState: ...
    def request_scan(self) -> None: ...


class HardwareEvents:
    """One thread, ``hardware-events``, between start and stop."""

    def __init__(
        self,
        watch: Watch,
        source: EventSource,
        *,
        settle: float = _SETTLE_SECONDS,
        retry: float = _RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``settle``: seconds in which further events are joined. ``retry``: between tries to register, in seconds."""
        self._watch = watch
        self._source = source
        self._settle = settle
        self._retry = retry
        self._clock = clock
        self._problem = ""  # the last one logged
        self.loop = Loop(
            "hardware-events",
            self._round,
            limit=_LIMIT_SECONDS,
            doing="waiting for hardware events",
            retry=Backoff(retry, retry, jitter=0.0),
        )

    def start(self) -> None:
        self.loop.start()

    def request_stop(self) -> None:
        """The present wait is the last one. Returns at once."""
        self.loop.request_stop()

    def stop(self, timeout: float = 2.0) -> None:
        """End the thread; a wait that hangs in the driver is left behind."""
        if not self.loop.stop(timeout):
            logger.warning("waiting for hardware events still hangs at stop")

    def _round(self) -> float:
        registered = _registered(self._watch.state)
        if registered is None:
            return _LOOK_SECONDS
        return 0.0 if self._listened(registered) else self._retry

    def _listened(self, registered: tuple[object, ...]) -> bool:
        """Register, listen, close; False when that is to be tried again later."""
        try:
            reporting = self._source.open()
            try:
                self._listen(registered, reporting)
            finally:
                self._source.close()
        except HardwareError as error:
            if str(error) != self._problem:
                logger.info("no hardware events for now, changes are found by reading: %s", error)
            self._problem = str(error)
            return False
        self._problem = ""
        return True

    def _listen(self, registered: tuple[object, ...], reporting: int) -> None:
        """Until the hardware is another, or cannot be read."""
        logger.debug("waiting for hardware events", extra={"gpus": reporting})
        asked = 0.0  # when a reading was asked for last
        due: float | None = None  # when the next one is to be
        while not self.loop.stopping and _registered(self._watch.state) == registered:
            self.loop.beat()
            if due is not None and self._clock() >= due:
                self._watch.request_scan()
                asked, due = self._clock(), None
            if not reporting:
                self.loop.sleep(_WAIT_SECONDS)
                continue
            seconds = _WAIT_SECONDS if due is None else min(_WAIT_SECONDS, max(0.0, due - self._clock()))
            try:
                event = self._source.wait(seconds)
            except HardwareError:
                self._watch.request_scan()  # a GPU is lost, perhaps
                raise
            if event is not None:
                _log(event)
                # An XID error is news; of MIG changes most are a claim's.
                soonest = self._clock() if event.xid is not None else self._clock() + self._settle
                due = max(asked + self._settle, soonest if due is None else min(due, soonest))


def _registered(state: HardwareState) -> tuple[object, ...] | None:
    """What a registration is good for; None while the hardware cannot be read."""
    if state.machine is None or state.problem:
        return None
    return tuple((gpu.uuid, gpu.mig is not None and gpu.mig.enabled) for gpu in state.machine.gpus)


def _log(event: GpuEvent) -> None:
    if event.xid is None:
        logger.debug("the MIG configuration of %s changed", event.uuid)
    else:
        logger.warning("%s reports XID %d", event.uuid or "a GPU", event.xid, extra={"gpu": event.uuid})
