"""The plugin's gRPC servers on their unix sockets: brought up and taken down in the order that the kubelet needs."""

from __future__ import annotations

from typing import Protocol

import grpc

from dra_driver.errors import StateError
from kubelet_plugin.endpoint.sockets import SocketPaths, remove_stale
from kubelet_plugin.node.unix_server import MESSAGE_SECONDS, UnixServer

# A call keeps its thread while its claim waits (for a GPU, for the API server): up to 45 s as long as few wait, half a
# second beyond that (``prepare.engine``). So there is room for a call of every pod that a node may have at once (110 by
# default), and for more. Threads are made when they are needed. When all are taken, the health check tells whether that
# is work or a standstill (self_check).
DRA_THREADS = 128
_REGISTRATION_THREADS = 2
_REGISTRATION_GRACE_SECONDS = 1.0


class Streams(Protocol):
    """Calls that last until they are told to end (``health_service``)."""

    def stop(self) -> None:
        """End them, and those that still come."""
        ...

    def close(self) -> None:
        """None comes any more."""
        ...


class PluginServers:
    """Both servers. ``driver`` is only needed to find what dead instances left behind.

    ``streams`` serves the calls of the DRA server that would not end by themselves.
    """

    def __init__(
        self,
        driver: str,
        paths: SocketPaths,
        dra_handlers: tuple[grpc.GenericRpcHandler, ...],
        registration_handler: grpc.GenericRpcHandler,
        streams: Streams | None = None,
        message_seconds: float = MESSAGE_SECONDS,
    ) -> None:
        self._streams = streams
        self._driver = driver
        self._paths = paths
        self._dra = UnixServer("dra-service", paths.dra, DRA_THREADS, dra_handlers, message_seconds)
        self._registration = UnixServer(
            "registration", paths.registration, _REGISTRATION_THREADS, (registration_handler,), message_seconds
        )

    def start(self) -> None:
        """1. Clean up after dead instances. 2. The DRA service. 3. Registration, which makes the kubelet come."""
        remove_stale(self._driver, self._paths)
        self._dra.start()
        try:
            self._registration.start()
        except StateError:
            self._dra.stop(grace=0)
            raise

    def stop(self, grace: float) -> None:
        """1. Registration: the kubelet turns to another instance. 2. Streams. 3. The DRA service, its calls done.
        4. What the streams had."""
        self._registration.stop(_REGISTRATION_GRACE_SECONDS)
        if self._streams is not None:
            self._streams.stop()
        self._dra.stop(grace)
        if self._streams is not None:
            self._streams.close()
