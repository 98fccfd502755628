"""A server that answers each request with the next step of a script: answers, resets, silence."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from dra_driver.kube.interface import Obj

Step = Callable[[socket.socket], bool]
"""Answers one request on its connection; False closes the connection."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


def answer(code: int, body: Obj | bytes, **headers: str) -> Step:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {code} X", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return _sends("\r\n".join(lines).encode() + b"\r\n\r\n" + data)


def status(code: int, reason: str, message: str, **headers: str) -> Step:
    return answer(code, {"kind": "Status", "code": code, "reason": reason, "message": message}, **headers)


def stream(*chunks: bytes, ends: bool = True) -> Step:
    """A chunked answer; without ``ends`` the rest of it never comes."""
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    data += b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return _sends(data + (b"0\r\n\r\n" if ends else b""))


def cut(*chunks: bytes) -> Step:
    """A chunked answer that is cut off."""
    start = stream(*chunks, ends=False)

    def step(connection: socket.socket) -> bool:
        start(connection)
        return False

    return step


def hang_up(connection: socket.socket) -> bool:
    """Close without an answer."""
    return False


def stay_silent(connection: socket.socket) -> bool:
    """Never answer."""
    return True


def _sends(data: bytes) -> Step:
    def step(connection: socket.socket) -> bool:
        connection.sendall(data)
        return True

    return step


class ScriptedServer:
    """Context manager; ``requests`` holds what was received, in order."""

    def __init__(self, *steps: Step) -> None:
        self._steps: queue.Queue[Step] = queue.Queue()
        for step in steps:
            self._steps.put(step)
        self.requests: list[Received] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, name="scripted-server", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), name="scripted-connection", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection.makefile("rb") as reader:
                while line := reader.readline():
                    headers = {}
                    while (header := reader.readline().strip()) != b"":
                        name, _, value = header.decode().partition(":")
                        headers[name.lower()] = value.strip()
                    body = reader.read(int(headers.get("content-length", 0)))
                    self.requests.append(Received(line.decode().strip(), headers, body))
                    if not self._steps.get_nowait()(connection):
                        break
            connection.shutdown(socket.SHUT_RDWR)
        except (OSError, ValueError, queue.Empty):
            connection.close()
