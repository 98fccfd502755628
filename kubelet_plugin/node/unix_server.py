"""One gRPC server on one unix socket.

Synchronous grpcio: hardware, fsync and locks block anyway. No connection age or idle limit is set, since the kubelet
takes a closed connection for a lost plugin.
"""

from __future__ import annotations

import contextlib
import logging
from concurrent import futures
from pathlib import Path

import grpc

from dra_driver.errors import StateError
from kubelet_plugin.node.message_deadline import MessageDeadline
from kubelet_plugin.node.socket_file import make_free

logger = logging.getLogger(__name__)

MESSAGE_SECONDS = 5.0  # the kubelet sends a call and its message in one go
_SOCKET_MODE = 0o600  # who calls is root, as we are


class UnixServer:
    """One gRPC server on one unix socket."""

    def __init__(
        self,
        name: str,
        path: Path,
        threads: int,
        handlers: tuple[grpc.GenericRpcHandler, ...],
        message_seconds: float = MESSAGE_SECONDS,
    ) -> None:
        """``message_seconds``: how long a call may hold a thread before its message comes."""
        self._name = name
        self._path = path
        self._threads = threads
        self._handlers = handlers
        self._message_seconds = message_seconds
        self._deadline: MessageDeadline | None = None
        self._server: grpc.Server | None = None
        self._pool: futures.ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Bind, restrict the socket to its owner, serve. Raises :class:`StateError` naming the path."""
        make_free(self._path)
        self._pool = futures.ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)
        deadline = MessageDeadline(self._name, self._message_seconds)
        handlers = [deadline.on(handler) for handler in self._handlers]
        server = grpc.server(self._pool, handlers=handlers, options=[("grpc.so_reuseport", 0)])
        try:
            server.add_insecure_port(f"unix:{self._path}")
            self._path.chmod(_SOCKET_MODE)
        except (RuntimeError, OSError) as error:
            self._pool.shutdown(wait=False)
            raise StateError(f"socket {self._path} cannot be bound: {error}") from error
        deadline.start()
        server.start()
        self._server = server
        self._deadline = deadline
        logger.info("serving", extra={"service": self._name, "path": str(self._path)})

    def stop(self, grace: float) -> None:
        """1. Remove the socket, so that nobody new comes. 2. Let calls in flight finish for up to ``grace`` seconds."""
        if self._server is None or self._pool is None or self._deadline is None:
            return
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self._server.stop(grace).wait()
        self._server = None
        self._deadline.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        logger.info("stopped", extra={"service": self._name})
