"""Notices clients that hang up while their thread waits for something else than the client.

A thread that serves a quiet watch does not read its socket; without this it would stay until the next bookmark.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Iterator

_JOIN_SECONDS = 5.0


class Hangups:
    """One thread over all watched connections. While one is watched, nobody else may read from its socket."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._actions: dict[socket.socket, Callable[[], None]] = {}
        self._wake_read, self._wake_write = socket.socketpair()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="apiserver-hangups", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; actions of connections still watched are not called."""
        self._stopped = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)
        self._wake_read.close()
        self._wake_write.close()

    @contextlib.contextmanager
    def watching(self, connection: socket.socket, action: Callable[[], None]) -> Iterator[None]:
        """Call ``action``, once, when the other side closes ``connection`` inside this context."""
        with self._lock:
            self._actions[connection] = action
        self._wake()
        try:
            yield
        finally:
            with self._lock:
                self._actions.pop(connection, None)
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # already stopped
            self._wake_write.send(b"x")

    def _run(self) -> None:
        while not self._stopped:
            with self._lock:
                actions = dict(self._actions)
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake_read, selectors.EVENT_READ)
                for connection in actions:
                    if connection.fileno() >= 0:
                        selector.register(connection, selectors.EVENT_READ)
                ready = [key.fileobj for key, _ in selector.select()]
            for found in ready:
                if found is self._wake_read:
                    self._wake_read.recv(1 << 12)
                elif isinstance(found, socket.socket):
                    self._hung_up(found)

    def _hung_up(self, connection: socket.socket) -> None:
        """Also for bytes that arrive: a client that pipelines requests behind a watch is not served."""
        with self._lock:
            action = self._actions.pop(connection, None)
        if action is not None:
            action()
