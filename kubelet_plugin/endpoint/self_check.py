"""Is this plugin alive, and can it work? It asks itself what the kubelet asks, through the same sockets.

As the health check of NVIDIA's driver: GetInfo on the registration socket and a prepare without claims on the DRA
socket. It finds a hanging server, a removed or stolen socket, and an exhausted thread pool.

The last one has two meanings. Not ready: a new claim would wait. But not dead as long as every call under way may still
be answered in time: with the API server away, 32 claims that wait take all threads, and a restart would mend nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from api.kubelet import dra_v1_pb2 as v1
from api.kubelet.services import DRA_V1, REGISTRATION
from kubelet_plugin.endpoint.calls_under_way import CallsUnderWay
from kubelet_plugin.endpoint.connection import KubeletConnection
from kubelet_plugin.endpoint.servers import DRA_THREADS
from kubelet_plugin.endpoint.sockets import SocketPaths
from kubelet_plugin.hardware.watch import HardwareWatch

# Each check makes a connection of its own; by default grpc would share one that may outlive a broken listener.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


@dataclass(frozen=True, slots=True)
class CheckTimes:
    """Seconds. Together the two calls must fit into the patience of the HTTP endpoint (8 s) and of a probe (12 s)."""

    registration: float = 1.0  # the kubelet gives GetInfo no more
    service: float = 2.0
    fresh: float = 1.0  # a finding of this age answers again: probes that come together cost one check


@dataclass(frozen=True, slots=True)
class _Finding:
    problem: str | None = None
    busy: bool = False  # the problem is only that all threads are taken, by calls that may still be answered in time


class SocketCheck:
    """What is wrong with our two sockets. Thread-safe; questions at the same time share one look."""

    def __init__(
        self,
        driver: str,
        paths: SocketPaths,
        calls: CallsUnderWay,
        *,
        times: CheckTimes | None = None,
        threads: int = DRA_THREADS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``calls``: those that the DRA service works on, with ``threads``."""
        self._driver = driver
        self._paths = paths
        self._calls = calls
        self._times = times or CheckTimes()
        self._threads = threads
        self._clock = clock
        self._lock = threading.Lock()
        self._last: tuple[float, _Finding] | None = None

    def ready(self) -> str | None:
        """Readiness: why a call of the kubelet would not be answered now, or None."""
        return self._finding().problem

    def alive(self) -> str | None:
        """Liveness: what only a restart mends, or None."""
        finding = self._finding()
        return None if finding.busy else finding.problem

    def _finding(self) -> _Finding:
        with self._lock:
            if self._last is None or self._clock() - self._last[0] > self._times.fresh:
                finding = self._look()
                self._last = self._clock(), finding
            return self._last[1]

    def _look(self) -> _Finding:
        problem = self._registration()
        return _Finding(problem) if problem else self._service()

    def _registration(self) -> str | None:
        path = self._paths.registration
        with grpc.insecure_channel(f"unix:{path}", options=_OPTIONS) as channel:
            try:
                info = REGISTRATION.client(channel).get_info(self._times.registration)
            except grpc.RpcError as error:
                return f"GetInfo on {path} failed: {error.code().name}: {error.details()}"
        return None if info.name == self._driver else f"{path} is served by driver {info.name!r}"

    def _service(self) -> _Finding:
        path = self._paths.dra
        with grpc.insecure_channel(f"unix:{path}", options=_OPTIONS) as channel:
            try:
                DRA_V1.client(channel).prepare(v1.NodePrepareResourcesRequest(), self._times.service)
            except grpc.RpcError as error:
                calls, stuck = self._calls.count(), self._calls.stuck()
                late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                return _Finding(
                    f"an empty NodePrepareResources on {path} failed: {error.code().name}: {error.details()}; "
                    f"{calls} calls under way, {stuck} of them past their deadline",
                    busy=late and calls >= self._threads and not stuck,
                )
        return _Finding()


def registration_check(connection: KubeletConnection) -> str | None:
    """Readiness: the kubelet has us."""
    state = connection.state
    if state.registered:
        return None
    return f"the kubelet refused this plugin: {state.refusal}" if state.refusal else "the kubelet has not registered us"


def hardware_check(hardware: HardwareWatch) -> str | None:
    """Readiness: containers can be given the hardware that there is; a reading that hangs is a loop that stands still.

    A node without a usable GPU is served nevertheless, with an empty pool; one whose GPUs are kept back is not ready.
    """
    obstacle = hardware.state.obstacle
    return f"no GPU is offered: {obstacle}" if obstacle else None
