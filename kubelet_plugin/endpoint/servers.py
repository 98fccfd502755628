"""The plugin's gRPC servers on their unix sockets: brought up and taken down in the order that the kubelet needs.

Synchronous grpcio: hardware, fsync and locks block anyway. No connection age or idle limit is set, since the kubelet
takes a closed connection for a lost plugin.
"""

from __future__ import annotations

import contextlib
import logging
from concurrent import futures
from pathlib import Path
from typing import Protocol

import grpc

from dra_driver.errors import StateError
from kubelet_plugin.endpoint.sockets import SocketPaths, make_free, remove_stale

logger = logging.getLogger(__name__)

# A call keeps its thread while its claim waits (for a GPU, for the API server): up to 45 s as long as few wait, half a
# second beyond that (``prepare.engine``). So there is room for a call of every pod that a node may have at once (110 by
# default), and for more. Threads are made when they are needed. When all are taken, the health check tells whether that
# is work or a standstill (self_check).
DRA_THREADS = 128
_REGISTRATION_THREADS = 2
_SOCKET_MODE = 0o600  # the kubelet is root
_REGISTRATION_GRACE_SECONDS = 1.0


class UnixServer:
    """One gRPC server on one unix socket."""

    def __init__(self, name: str, path: Path, threads: int, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        self._name = name
        self._path = path
        self._threads = threads
        self._handlers = handlers
        self._server: grpc.Server | None = None
        self._pool: futures.ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Bind, restrict the socket to its owner, serve. Raises :class:`StateError` naming the path."""
        make_free(self._path)
        self._pool = futures.ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)
        server = grpc.server(self._pool, handlers=list(self._handlers), options=[("grpc.so_reuseport", 0)])
        try:
            server.add_insecure_port(f"unix:{self._path}")
            self._path.chmod(_SOCKET_MODE)
        except (RuntimeError, OSError) as error:
            self._pool.shutdown(wait=False)
            raise StateError(f"socket {self._path} cannot be bound: {error}") from error
        server.start()
        self._server = server
        logger.info("serving", extra={"service": self._name, "path": str(self._path)})

    def stop(self, grace: float) -> None:
        """1. Remove the socket, so that nobody new comes. 2. Let calls in flight finish for up to ``grace`` seconds."""
        if self._server is None or self._pool is None:
            return
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self._server.stop(grace).wait()
        self._server = None
        self._pool.shutdown(wait=False, cancel_futures=True)
        logger.info("stopped", extra={"service": self._name})


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
    ) -> None:
        self._streams = streams
        self._driver = driver
        self._paths = paths
        self._dra = UnixServer("dra-service", paths.dra, DRA_THREADS, dra_handlers)
        self._registration = UnixServer(
            "registration", paths.registration, _REGISTRATION_THREADS, (registration_handler,)
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
