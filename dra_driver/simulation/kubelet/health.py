"""What the kubelet knows about the health of devices (KEP 4680), and the stream of one plugin that tells it.

Rules (kubelet cm/dra: healthinfo.go, plugin): each message is the whole list of a driver's devices; a device of which
nothing was heard for 30 s is Unknown; the end of a stream forgets the driver; the stream is opened again 5 s later. The
versions are tried in the order v1, v1alpha1, and only if advertised.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dra_driver.simulation.kubelet.plugin import CallFailed, Device, Plugin

logger = logging.getLogger(__name__)

UNKNOWN = "Unknown"
_WORDS = {0: UNKNOWN, 1: "Healthy", 2: "Unhealthy"}  # dra-health HealthStatus, core/v1 ResourceHealthStatus


@dataclass(frozen=True, slots=True)
class DeviceState:
    """``health`` as in a pod's status: Healthy, Unhealthy or Unknown."""

    health: str = UNKNOWN
    message: str = ""


@dataclass(frozen=True, slots=True)
class _Heard:
    state: DeviceState
    until: float


class HealthCache:
    """Thread-safe. ``timeout``: seconds after which a device is Unknown whose message names no time of its own."""

    def __init__(self, timeout: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout = timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._heard: dict[str, dict[tuple[str, str], _Heard]] = {}
        self._listener: Callable[[str], None] = lambda driver: None

    def on_change(self, listener: Callable[[str], None]) -> None:
        """``listener`` is told the driver, on the thread of its stream; it takes the place of the one before."""
        self._listener = listener

    def state(self, driver: str, device: Device) -> DeviceState:
        with self._lock:
            heard = self._heard.get(driver, {}).get((device.pool, device.device))
        return heard.state if heard and self._clock() < heard.until else DeviceState()

    def update(self, driver: str, devices: Iterable[Any]) -> None:
        """``devices``: DeviceHealth messages of either version, all that the driver has."""
        now = self._clock()
        heard = {}
        for each in devices:
            seconds = each.health_check_timeout_seconds
            state = DeviceState(_WORDS.get(each.health, UNKNOWN), each.message)
            key = (each.device.pool_name, each.device.device_name)
            heard[key] = _Heard(state, now + (seconds if seconds > 0 else self._timeout))
        with self._lock:
            before, self._heard[driver] = self._heard.get(driver, {}), heard
        if {key: each.state for key, each in before.items()} != {key: each.state for key, each in heard.items()}:
            self._listener(driver)

    def forget(self, driver: str) -> None:
        with self._lock:
            known = self._heard.pop(driver, None)
        if known:
            self._listener(driver)


class HealthStream:
    """One thread that keeps the stream of one plugin open, between start and stop."""

    def __init__(self, plugin: Plugin, service: str, cache: HealthCache, redial: float) -> None:
        self._plugin = plugin
        self._service = service
        self._cache = cache
        self._redial = redial
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"kubelet-health-{plugin.driver}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """1. Open no other stream. 2. Close the plugin's connection, which ends the present one. 3. End the thread."""
        self._stopping.set()
        self._plugin.close()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                for message in self._plugin.watch_health(self._service):
                    self._cache.update(self._plugin.driver, message.devices)
            except CallFailed as error:
                logger.debug("health stream ended: %s", error, extra={"driver": self._plugin.driver})
            self._cache.forget(self._plugin.driver)
            self._stopping.wait(self._redial)
