"""One connection of an HTTP server, and how much of everything the server has."""

from __future__ import annotations

import enum
import socket
from dataclasses import dataclass

from dra_driver.http.messages import Head, HttpStream


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """``streams``: as many have a thread of their own besides; more are refused with 429."""

    threads: int
    connections: int
    request_seconds: float  # from the first byte, or the connection, to the last byte of the answer
    body_bytes: int = 0
    streams: int = 0


class State(enum.Enum):
    READING = enum.auto()  # a request is coming, or the first one is awaited
    WORKING = enum.auto()  # a thread has it
    WRITING = enum.auto()
    STREAMING = enum.auto()
    IDLE = enum.auto()  # between two requests


class Connection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.state = State.READING
        self.received = bytearray()
        self.head: Head | None = None
        self.outgoing = memoryview(b"")
        self.keep = False
        self.stream: HttpStream | None = None
        self.closed = False
