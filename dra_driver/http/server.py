"""An HTTP server that clients cannot exhaust: so many threads and no more, and a deadline for every whole request.

One thread reads the requests of all connections and writes the answers; a request gets one of the ``threads`` once it
has come as a whole. A client that sends slowly, reads slowly or says nothing costs a socket until its deadline, and
not even that where room is needed: the connection that has been waiting the longest makes place for a new one.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from queue import SimpleQueue

from dra_driver.http.connection import Connection, HttpLimits, State
from dra_driver.http.messages import (
    HttpAnswer,
    HttpStream,
    Refuse,
    Refused,
    encode,
    encode_chunk,
    encode_stream_head,
    refuse_plainly,
    take_head,
)
from dra_driver.http.workers import Serve, Workers

logger = logging.getLogger(__name__)

_BLOCK = 64 << 10
_DRAIN_SECONDS = 2.0
_FULL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class _StreamEnded:
    in_order: bool


class HttpServer:
    """Serves on a listening socket, which becomes its own, between start and stop. Started once."""

    def __init__(
        self, name: str, listening: socket.socket, serve: Serve, limits: HttpLimits, refuse: Refuse = refuse_plainly
    ) -> None:
        """``serve`` is called on several threads. ``refuse`` makes the answers to what never gets there."""
        self._name = name
        self._listening = listening
        self._limits = limits
        self._refuse = refuse
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._connections: set[Connection] = set()
        # Both in the order of time: all deadlines are equally far away when they are set.
        self._deadlines: dict[Connection, float] = {}
        self._idle: dict[Connection, None] = {}
        self._done: SimpleQueue[tuple[Connection, HttpAnswer | HttpStream | _StreamEnded]] = SimpleQueue()
        self._workers = Workers(name, limits.threads, serve, refuse, self._report)
        self._streams = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._listening.setblocking(False)
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> None:
        """1. Accept no more. 2. End streams. 3. Give requests under way a moment. 4. Cut what is left."""
        self._stopping.set()
        self._wake()
        self._thread.join()

    # -- the thread of all connections --------------------------------------------------------------------------------

    def _run(self) -> None:
        until: float | None = None
        while until is None or (self._connections and time.monotonic() < until):
            for key, _ in self._selector.select(self._pause(until)):
                if key.fileobj is self._listening:
                    self._accept()
                elif key.fileobj is self._wake_read:
                    with contextlib.suppress(BlockingIOError):
                        self._wake_read.recv(_BLOCK)
                elif not key.data.closed:
                    self._step(key.data, self._ready)
            while not self._done.empty():
                connection, what = self._done.get()
                self._step(connection, partial(self._take, what))
            self._cut_late()
            if until is None and self._stopping.is_set():
                until = time.monotonic() + _DRAIN_SECONDS
                self._wind_down()
        for connection in list(self._connections):
            self._drop(connection)
        self._workers.stop()
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def _step(self, connection: Connection, action: Callable[[Connection], None]) -> None:
        try:
            action(connection)
        except BlockingIOError:
            return  # not yet after all
        except OSError:
            self._drop(connection)  # the client has gone
        except Exception:
            # Thread boundary: one connection must not end all others.
            logger.exception("%s: a connection broke", self._name)
            self._drop(connection)

    def _pause(self, until: float | None) -> float | None:
        first = next(iter(self._deadlines.values()), None)
        ends = [each for each in (until, first) if each is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _accept(self) -> None:
        try:
            sock, _ = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            logger.warning("%s: a connection cannot be accepted: %s", self._name, error)
            if not self._make_room():
                self._stopping.wait(_FULL_SECONDS)  # no descriptor is free; the next try would come at once
            return
        if len(self._connections) >= self._limits.connections and not self._make_room():
            sock.close()
            return
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):  # some systems refuse it once the client has gone
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock)
        self._connections.add(connection)
        self._set_deadline(connection)
        self._selector.register(sock, selectors.EVENT_READ, connection)

    def _make_room(self) -> bool:
        """Close the connection that waits the longest for its client. False when all have work."""
        waiting = (each for each in self._deadlines if each.state is State.READING)
        longest = next(iter(self._idle), None) or next(waiting, None)
        if longest is None:
            return False
        self._drop(longest)
        return True

    def _ready(self, connection: Connection) -> None:
        if connection.state is State.WRITING:
            self._write(connection)
            return
        if connection.state is State.STREAMING:
            # Bytes are no better than an end: what is sent behind a request for a stream is not served.
            connection.keep = False
            self._selector.unregister(connection.sock)
            if connection.stream is not None:
                connection.stream.close()
            return
        received = connection.sock.recv(_BLOCK)
        if not received:
            self._drop(connection)
            return
        if connection.state is State.IDLE:
            connection.state = State.READING
            self._idle.pop(connection, None)
            self._set_deadline(connection)
        connection.received += received
        self._advance(connection)

    def _advance(self, connection: Connection) -> None:
        """Hand a request on when it is there as a whole."""
        if connection.head is None:
            head = take_head(connection.received, self._limits.body_bytes, self._refuse)
            if isinstance(head, Refused):
                self._send(connection, head.answer, keep=False)
                return
            if head is None:
                return
            connection.head = head
            if head.interim:
                connection.sock.send(head.interim)
        head = connection.head
        if len(connection.received) < head.body_bytes:
            return
        request = replace(head.request, body=bytes(connection.received[: head.body_bytes]))
        del connection.received[: head.body_bytes]
        connection.state = State.WORKING
        self._selector.unregister(connection.sock)
        self._workers.submit(connection, request)

    def _take(self, what: HttpAnswer | HttpStream | _StreamEnded, connection: Connection) -> None:
        """What a thread has done for a connection."""
        if isinstance(what, _StreamEnded):
            self._streams -= 1
            if connection.closed:
                return
            connection.stream = None
            connection.sock.setblocking(False)
            if not what.in_order:
                self._drop(connection)
                return
            # From here, so that a request that follows at once does not pass for one that hung up.
            self._set_deadline(connection)
            self._send(connection, encode_chunk(b""), keep=connection.keep and not self._stopping.is_set())
            return
        self._workers.finished()
        if isinstance(what, HttpStream):
            refusal = self._begin_stream(connection, what)
            if refusal is None:
                return
            what = refusal
        if connection.closed or connection.head is None:
            return
        keep = connection.head.keep and not self._stopping.is_set()
        only_head = connection.head.request.method == "HEAD"
        self._send(connection, encode(what, keep=keep, only_head=only_head), keep=keep)

    def _begin_stream(self, connection: Connection, stream: HttpStream) -> HttpAnswer | None:
        """None, or why there is no stream."""
        if connection.closed or connection.head is None or self._stopping.is_set():
            stream.close()
            return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the server stops")
        if self._streams >= self._limits.streams:
            stream.close()
            return self._refuse(HTTPStatus.TOO_MANY_REQUESTS, f"{self._streams} streams are open, try again later")
        self._deadlines.pop(connection, None)
        connection.state, connection.stream, connection.keep = State.STREAMING, stream, connection.head.keep
        self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        threading.Thread(
            target=self._stream, args=(connection, stream), name=f"{self._name}-stream", daemon=True
        ).start()
        self._streams += 1  # not for a thread that could not be started
        return None

    def _send(self, connection: Connection, data: bytes, *, keep: bool) -> None:
        connection.outgoing, connection.keep = memoryview(data), keep
        with contextlib.suppress(KeyError):  # a thread had it
            self._selector.unregister(connection.sock)
        connection.state = State.WRITING
        self._selector.register(connection.sock, selectors.EVENT_WRITE, connection)
        self._write(connection)

    def _write(self, connection: Connection) -> None:
        sent = connection.sock.send(connection.outgoing)
        connection.outgoing = connection.outgoing[sent:]
        if connection.outgoing:
            return
        self._deadlines.pop(connection, None)
        if connection.keep:
            self._wait_for_next(connection)
        else:
            with contextlib.suppress(OSError):  # the client may have gone meanwhile
                connection.sock.shutdown(socket.SHUT_WR)
            self._drop(connection)

    def _wait_for_next(self, connection: Connection) -> None:
        with contextlib.suppress(KeyError):  # it is registered for something else, or not at all
            self._selector.unregister(connection.sock)
        self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        connection.head = None
        if connection.received:  # sent ahead
            connection.state = State.READING
            self._set_deadline(connection)
            self._advance(connection)
        else:
            connection.state = State.IDLE
            self._idle[connection] = None

    def _set_deadline(self, connection: Connection) -> None:
        self._deadlines.pop(connection, None)
        self._deadlines[connection] = time.monotonic() + self._limits.request_seconds

    def _cut_late(self) -> None:
        now = time.monotonic()
        while self._deadlines:
            connection, end = next(iter(self._deadlines.items()))
            if end > now:
                return
            logger.debug("%s: a request took longer than %g s", self._name, self._limits.request_seconds)
            self._drop(connection)

    def _wind_down(self) -> None:
        self._selector.unregister(self._listening)
        self._listening.close()
        for connection in list(self._connections):
            if connection.state in (State.IDLE, State.READING):
                self._drop(connection)
            elif connection.stream is not None:
                connection.stream.close()

    def _drop(self, connection: Connection) -> None:
        if connection.closed:
            return
        connection.closed = True
        self._connections.discard(connection)
        self._deadlines.pop(connection, None)
        self._idle.pop(connection, None)
        with contextlib.suppress(KeyError, ValueError):  # a thread has it, so it is not registered
            self._selector.unregister(connection.sock)
        if connection.stream is not None:
            connection.stream.close()
        connection.sock.close()

    # -- other threads -----------------------------------------------------------------------------------------------

    def _stream(self, connection: Connection, stream: HttpStream) -> None:
        in_order = False
        try:
            # For each piece: a client that takes none for so long is gone.
            connection.sock.settimeout(self._limits.request_seconds)
            connection.sock.sendall(encode_stream_head(stream))
            for chunk in stream.chunks:
                connection.sock.sendall(encode_chunk(chunk))
            in_order = True
        except OSError:
            logger.debug("%s: the client of a stream has gone", self._name)
        except Exception:
            # Thread boundary: the stream breaks off for its client; the place that it had is free again.
            logger.exception("%s: a stream broke", self._name)
        finally:
            stream.close()
            self._report(connection, _StreamEnded(in_order))

    def _report(self, connection: Connection, what: HttpAnswer | HttpStream | _StreamEnded) -> None:
        self._done.put((connection, what))
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # it has stopped, or is awake already
            self._wake_write.send(b"x")
