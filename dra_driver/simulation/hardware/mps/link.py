"""How a daemon and one of its servers speak: a socket pair with whole messages, JSON, and open files beside them.

The end of either process is the end of the file for the other, however it came.
"""

from __future__ import annotations

import json
import socket
from typing import Any

_MOST_BYTES = 262144
_MOST_FILES = 2


class Link:
    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: dict[str, Any], *files: int) -> None:
        """To a peer that has ended, nothing is sent: its end of the file tells."""
        try:
            socket.send_fds(self._end, [json.dumps(message).encode()], files)
        except (BrokenPipeError, ConnectionResetError):
            return

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and the files that came with it; None when the other process has ended."""
        try:
            data, files, _flags, _address = socket.recv_fds(self._end, _MOST_BYTES, _MOST_FILES)
        except ConnectionResetError:
            return None
        return (json.loads(data), files) if data else None

    def close(self) -> None:
        self._end.close()


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
