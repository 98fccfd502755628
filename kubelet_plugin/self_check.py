"""Is this plugin alive? It asks itself what the kubelet asks, through the same sockets.

As the health check of NVIDIA's driver: GetInfo on the registration socket and a prepare without claims on the DRA
socket. It finds a hanging server, a removed or stolen socket, and an exhausted thread pool.
"""

from __future__ import annotations

import grpc

from api.kubelet import dra_v1_pb2 as v1
from api.kubelet.services import DRA_V1, REGISTRATION
from kubelet_plugin.connection import KubeletConnection
from kubelet_plugin.hardware_watch import HardwareWatch
from kubelet_plugin.sockets import SocketPaths

_TIMEOUT_SECONDS = 5.0
_SCAN_LIMIT_SECONDS = 60.0
# Each check makes a connection of its own; by default grpc would share one that may outlive a broken listener.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


class SocketCheck:
    """Liveness: what is wrong with our two sockets, or None."""

    def __init__(self, driver: str, paths: SocketPaths, *, timeout: float = _TIMEOUT_SECONDS) -> None:
        self._driver = driver
        self._paths = paths
        self._timeout = timeout

    def __call__(self) -> str | None:
        return self._registration() or self._service()

    def _registration(self) -> str | None:
        path = self._paths.registration
        with grpc.insecure_channel(f"unix:{path}", options=_OPTIONS) as channel:
            try:
                info = REGISTRATION.client(channel).get_info(self._timeout)
            except grpc.RpcError as error:
                return f"GetInfo on {path} failed: {error.code().name}: {error.details()}"
        return None if info.name == self._driver else f"{path} is served by driver {info.name!r}"

    def _service(self) -> str | None:
        path = self._paths.dra
        with grpc.insecure_channel(f"unix:{path}", options=_OPTIONS) as channel:
            try:
                DRA_V1.client(channel).prepare(v1.NodePrepareResourcesRequest(), self._timeout)
            except grpc.RpcError as error:
                return f"an empty NodePrepareResources on {path} failed: {error.code().name}: {error.details()}"
        return None


def registration_check(connection: KubeletConnection) -> str | None:
    """Readiness: the kubelet has us."""
    state = connection.state
    if state.registered:
        return None
    return f"the kubelet refused this plugin: {state.refusal}" if state.refusal else "the kubelet has not registered us"


def hardware_check(hardware: HardwareWatch) -> str | None:
    """Readiness: the hardware answers. A node without a usable GPU is served nevertheless, with an empty pool."""
    seconds = hardware.hanging_for()
    return f"a hardware reading hangs since {seconds:.0f} s" if seconds > _SCAN_LIMIT_SECONDS else None
