"""The health service (KEP 4680), v1 and v1alpha1: tells the kubelet, for pods' status, how each device is.

Every message is the whole list: at once when it changes, and every 10 s without a change, since the kubelet takes 30 s
of silence for Unknown (cm/dra). What is told, ``device_health`` decides; it is as old as the hardware watch's last
reading. Streams last as long as the kubelet does, so they have threads of their own and take none from prepares.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any, Protocol

import grpc

from api.kubelet import health_v1_pb2, health_v1alpha1_pb2
from api.kubelet.services import HEALTH_V1, HEALTH_V1ALPHA1
from dra_driver.devices.policy import MigPolicy
from dra_driver.errors import StateError
from dra_driver.text import shortened
from kubelet_plugin.hardware.watch import HANGING_SECONDS, HardwareState
from kubelet_plugin.health.states import DeviceHealth, DeviceUuids, Health, device_health, remember
from kubelet_plugin.node.own_threads import OwnThreads

logger = logging.getLogger(__name__)

# In the kubelet's order of preference; 1.34 to 1.36 know only the second (plugin.go, streamHealth).
SUPPORTED_VERSIONS = (HEALTH_V1.advertised, HEALTH_V1ALPHA1.advertised)
MAX_STREAMS = 4  # the kubelet has one; a second while it restarts, the rest for people who look

_REPEAT_SECONDS = 10.0


class HardwareSource(Protocol):
    @property
    def state(self) -> HardwareState: ...
    @property
    def read_at(self) -> float: ...
    def hanging_for(self) -> float: ...
    def on_change(self, listener: Callable[[], None]) -> None: ...


class HealthService:
    """Streams from the start of the server until :meth:`stop`. ``held`` gives the devices of prepared claims.

    The pool has the node's name. ``mig``: what is decided about its GPUs, and so which are offered as a whole.
    ``troubles``: those of them that cannot be used though their GPU answers, and why.
    """

    def __init__(
        self,
        pool_name: str,
        hardware: HardwareSource,
        held: Callable[[], DeviceUuids],
        *,
        mig: MigPolicy,
        troubles: Callable[[], Mapping[str, str]] = dict,
        repeat: float = _REPEAT_SECONDS,
    ) -> None:
        self._pool_name = pool_name
        self._hardware = hardware
        self._held = held
        self._mig = mig
        self._troubles = troubles
        self._repeat = repeat
        self._changed = threading.Condition()
        self._changes = 0
        self._streams = 0
        self._stopping = False
        self._known: DeviceUuids = {}
        self._last_held: DeviceUuids = {}
        # One thread more than streams: it tells a surplus caller to go. Threads are made when they are needed.
        self._threads = futures.ThreadPoolExecutor(MAX_STREAMS + 1, thread_name_prefix="health")
        hardware.on_change(self.look_again)

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        return (
            HEALTH_V1.handler(OwnThreads(self._threads, self.watch_v1)),
            HEALTH_V1ALPHA1.handler(OwnThreads(self._threads, self.watch_v1alpha1)),
        )

    @property
    def streams(self) -> int:
        """How many are open."""
        return self._streams

    def stop(self) -> None:
        """End all streams, and every one that comes later: the kubelet dials again as soon as its stream has ended."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let the threads go. Not before the server has stopped: a stream that finds no threads breaks the thread that
        serves all calls (grpc/_server.py, _handle_call), and the server would never have stopped."""
        self._threads.shutdown(wait=False)

    def watch_v1(
        self, request: health_v1_pb2.NodeWatchResourcesRequest, context: grpc.ServicerContext
    ) -> Iterator[health_v1_pb2.NodeWatchResourcesResponse]:
        for devices in self._watch(context):
            yield _message(health_v1_pb2, self._pool_name, self._hardware.read_at, devices)

    def watch_v1alpha1(
        self, request: health_v1alpha1_pb2.NodeWatchResourcesRequest, context: grpc.ServicerContext
    ) -> Iterator[health_v1alpha1_pb2.NodeWatchResourcesResponse]:
        for devices in self._watch(context):
            yield _message(health_v1alpha1_pb2, self._pool_name, self._hardware.read_at, devices)

    def devices(self) -> tuple[DeviceHealth, ...]:
        """The list as it is now."""
        hardware = self._hardware.state
        held = self._held_devices()
        with self._changed:
            self._known = remember(self._known, hardware.machine, self._mig, self._pool_name)
            known = self._known
        hanging = self._hardware.hanging_for() > HANGING_SECONDS
        return device_health(hardware, known, held, self._troubles(), hanging=hanging)

    def _watch(self, context: grpc.ServicerContext) -> Iterator[tuple[DeviceHealth, ...]]:
        with self._changed:
            surplus = self._streams >= MAX_STREAMS
            self._streams += not surplus
        if surplus:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_STREAMS} health streams are open already")
        try:
            # Called too when the caller has gone: the thread that waits below is free at once.
            if context.add_callback(self.look_again):
                yield from self._changes_of_devices(context)
        finally:
            with self._changed:
                self._streams -= 1

    def _changes_of_devices(self, context: grpc.ServicerContext) -> Iterator[tuple[DeviceHealth, ...]]:
        sent: tuple[DeviceHealth, ...] | None = None
        due = 0.0
        while True:
            seen = self._changes  # before the looks below: what changes after them must not be slept over
            if self._stopping or not context.is_active():
                return
            devices = self.devices()
            if devices != sent or time.monotonic() >= due:
                _log(sent, devices)
                yield devices
                sent, due = devices, time.monotonic() + self._repeat
            with self._changed:
                if self._changes == seen and not self._stopping:
                    self._changed.wait(max(0.0, due - time.monotonic()))

    def look_again(self) -> None:
        """Something may have changed. Returns at once."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def _held_devices(self) -> DeviceUuids:
        try:
            self._last_held = self._held()
        except StateError as error:
            logger.warning("devices held by claims are not known, using those known before: %s", error)
        return self._last_held


def _message(messages: Any, pool_name: str, read_at: float, devices: tuple[DeviceHealth, ...]) -> Any:
    """``messages``: the generated module of the version, whose two are alike."""
    values = {
        Health.UNKNOWN: messages.HealthStatus.UNKNOWN,
        Health.HEALTHY: messages.HealthStatus.HEALTHY,
        Health.UNHEALTHY: messages.HealthStatus.UNHEALTHY,
    }
    return messages.NodeWatchResourcesResponse(
        devices=[
            messages.DeviceHealth(
                device=messages.DeviceIdentifier(pool_name=pool_name, device_name=each.device),
                health=values[each.health],
                last_updated_time=int(read_at),
                message=shortened(each.message),
            )
            for each in devices
        ]
    )


def _log(sent: tuple[DeviceHealth, ...] | None, devices: tuple[DeviceHealth, ...]) -> None:
    if devices == sent:
        return
    ill = [f"{each.device} {each.health.name.lower()}" for each in devices if each.health is not Health.HEALTHY]
    logger.info("telling the kubelet the health of devices", extra={"devices": len(devices), "ill": ", ".join(ill)})
