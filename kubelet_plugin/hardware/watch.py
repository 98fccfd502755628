"""Reads the hardware again and again, on a thread of its own, and remembers the last answer.

Whoever needs the machine takes it from here and never waits for NVML, which can hang for minutes on a sick GPU. A
failing reading is reported at once; the machine read before it is kept for two more tries, because withdrawing a
node's devices for one hiccup of the driver would wake every pod that waits for a GPU.

With each reading it finds out what keeps containers from getting those GPUs (``obstacles``). The machine stays known
then, since unprepare and MIG need it; only it is not offered.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from dra_driver.errors import HardwareError, HardwareUnavailable
from dra_driver.hardware.model import Machine
from dra_driver.hardware.nvml import DriverReplaced, GpuProblem, Reading
from dra_driver.kube.backoff import Backoff
from dra_driver.observability.listeners import Listeners
from dra_driver.observability.loops import Loop
from kubelet_plugin.hardware.obstacles import LookForObstacles, Obstacle, without_obstacles

logger = logging.getLogger(__name__)

FAILURES_BEFORE_WITHDRAWAL = 3
HANGING_SECONDS = 60.0  # a reading that takes longer hangs
_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 30.0


class Hardware(Protocol):
    """What is read (``dra_driver.hardware.nvml.NvmlHardware``). ``start`` may be tried again after it failed."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def read(self) -> Reading: ...


@dataclass(frozen=True, slots=True)
class HardwareState:
    """The last answer. ``machine`` is None when there is none to offer; ``problem`` is empty when all went well.

    ``read`` is False until the first reading has ended, well or not. ``tentative``: readings failed, but too few in a
    row to withdraw what was known before, by this process or by the one before it. ``obstacles``: what keeps
    containers from getting GPUs of ``machine``.
    """

    read: bool = False
    machine: Machine | None = None
    problem: str = ""
    gpu_problems: tuple[GpuProblem, ...] = ()
    tentative: bool = False
    obstacles: tuple[Obstacle, ...] = ()

    @property
    def obstacle(self) -> str:
        """What keeps containers from getting any GPU of this node; "" when nothing does."""
        return next((each.message for each in self.obstacles if each.uuid is None), "")

    @property
    def offered(self) -> Machine | None:
        """The machine as others may count on it: without GPUs that no container could be given."""
        if self.machine is None or not self.obstacles:
            return self.machine
        if self.obstacle:
            return None
        withheld = {each.uuid for each in self.obstacles}
        return replace(self.machine, gpus=tuple(gpu for gpu in self.machine.gpus if gpu.uuid not in withheld))


class HardwareWatch:
    """One thread, ``hardware-watch``, between start and stop."""

    def __init__(
        self,
        hardware: Hardware,
        interval: float,
        *,
        obstacles: LookForObstacles = without_obstacles,
        retry: float = _RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """``interval``: seconds between two readings, 0: none after the first good one. ``retry``: after a failure."""
        self._hardware = hardware
        self._obstacles = obstacles
        self._interval = interval
        self._backoff = Backoff(retry, max(retry, min(_LONGEST_RETRY_SECONDS, interval or _LONGEST_RETRY_SECONDS)))
        self._clock = clock
        self._wall_clock = wall_clock
        self.loop = Loop(
            "hardware-watch",
            self._round,
            limit=HANGING_SECONDS,
            doing="a reading of the hardware",
            clock=clock,
            wall_clock=wall_clock,
        )
        self._changed: Listeners[[]] = Listeners("the hardware changed", self.loop.count_error)
        self._was_read: Listeners[[]] = Listeners("the hardware was read", self.loop.count_error)
        self._replaced: Listeners[[str]] = Listeners("the driver was replaced", self.loop.count_error)
        self._soon: float | None = None
        self._state = HardwareState()
        self._failures = 0
        self._reading_since: float | None = None
        self._read_at = 0.0
        self._readings = 0
        self._first = threading.Event()

    @property
    def state(self) -> HardwareState:
        return self._state

    @property
    def read_at(self) -> float:
        """When the last reading ended, well or not, in seconds since 1970; 0 before the first one."""
        return self._read_at

    @property
    def readings(self) -> int:
        """How many have begun. One shows what happened before it began; one under way may be too old for that."""
        return self._readings

    def machine(self) -> Machine:
        """The machine as last read. Raises :class:`HardwareUnavailable` saying why there is none."""
        state = self._state
        if state.machine is None:
            self.request_scan()
            raise HardwareUnavailable(state.problem or "the hardware was not read yet", hint="the kubelet tries again")
        return state.machine

    def on_change(self, listener: Callable[[], None]) -> None:
        """``listener`` is called on the watch's thread when the state changed. It must not block."""
        self._changed.add(listener)

    def on_reading(self, listener: Callable[[], None]) -> None:
        """As :meth:`on_change`, but after each reading, also one that says what the one before it said."""
        self._was_read.add(listener)

    def on_driver_replaced(self, listener: Callable[[str], None]) -> None:
        """``listener`` gets a sentence, on the watch's thread, when only a new process can read the hardware."""
        self._replaced.add(listener)

    def request_scan(self) -> None:
        """Read again now. Returns at once."""
        self.loop.wake()

    def request_scan_within(self, seconds: float) -> None:
        """Wait no longer than this for the next reading. For listeners, on the watch's thread."""
        self._soon = seconds if self._soon is None else min(seconds, self._soon)

    def wait_for_first_reading(self, timeout: float) -> bool:
        """Wait until the first reading has ended, well or not; False when ``timeout`` seconds were not enough."""
        return self._first.wait(timeout)

    def hanging_for(self) -> float:
        """Seconds that the reading now in progress has taken; 0 when none is."""
        since = self._reading_since
        return 0.0 if since is None else self._clock() - since

    def start(self) -> None:
        self.loop.start()

    def stop(self, timeout: float = 2.0) -> None:
        """1. End the thread; a reading that hangs is left behind. 2. Shut the hardware library down."""
        if not self.loop.stop(timeout):
            logger.warning("a hardware reading still hangs at stop", extra={"seconds": round(self.hanging_for(), 1)})
            return
        if not self.loop.started:
            return
        try:
            self._hardware.stop()
        except HardwareError as error:
            logger.warning("shutting the hardware library down failed: %s", error)

    def scan(self) -> None:
        """One reading, on the calling thread."""
        self._readings += 1
        self._reading_since = self._clock()
        try:
            state = self._read()
        finally:
            self._reading_since = None
        self._read_at = self._wall_clock()
        if state != self._state:
            self._log_change(state)
            self._state = state
            self._changed.tell()
        self._was_read.tell()
        self._first.set()

    def _read(self) -> HardwareState:
        try:
            self._hardware.start()
            reading = self._hardware.read()
            obstacles = self._obstacles(reading.machine)
        except DriverReplaced as error:
            self._replaced.tell(str(error))
            return self._failed(str(error))
        except HardwareError as error:
            return self._failed(str(error))
        except Exception as error:
            # Thread boundary: an answer that NVML or the binding should not give must not end the watch.
            logger.exception("the hardware reading broke")
            self.loop.count_error()
            return self._failed(f"the hardware reading broke: {error!r}; see the plugin's log")
        self._failures = 0
        return HardwareState(True, reading.machine, "", reading.problems, obstacles=obstacles)

    def _failed(self, problem: str) -> HardwareState:
        self._failures += 1
        try:
            self._hardware.stop()  # the next try begins from nothing: a driver may have been installed or replaced
        except HardwareError as error:
            logger.debug("shutting the hardware library down failed: %s", error)
        keep = self._failures < FAILURES_BEFORE_WITHDRAWAL
        kept = self._state if keep else HardwareState()
        return replace(kept, read=True, problem=problem, tentative=keep)

    def _log_change(self, state: HardwareState) -> None:
        if state.problem:
            logger.error("hardware cannot be read: %s", state.problem)
        elif state.machine is not None:
            logger.info(
                "hardware read",
                extra={"gpus": len(state.machine.gpus), "driver": state.machine.driver_version},
            )
        for problem in state.gpu_problems:
            logger.error("GPU %d cannot be read and is left out: %s", problem.index, problem.message)
        for obstacle in state.obstacles:
            what = f"GPU {obstacle.uuid} is not" if obstacle.uuid else "no GPU of this node is"
            logger.error("%s offered, since no container could be given it: %s", what, obstacle.message)

    def _round(self) -> float | None:
        self._soon = None
        self.scan()
        if self._state.problem or self._state.obstacles:
            pause: float | None = self._backoff.next_delay()
        else:
            self._backoff.reset()
            pause = self._interval or None
        return pause if self._soon is None else min(self._soon, pause or self._soon)
