"""The folder of a namespace, or of a server, in the pipe directory: through it clients come, and nothing else.

The real one holds a socket, ``control`` (MPS v3 Namespaces), to which one can connect where it is mounted read-only.
So these FIFOs are made by the daemon before anybody asks: who asks takes a ticket, eight bytes read at once from
``.tickets``, and uses ``.clients/<ticket>.in`` and ``.out`` as in ``pipes``. A few tickets always lie ready, so one
that somebody took and never used is no loss. No namespace's name has a dot.

The pages do not say what a command answers that is sent to a namespace's socket. Here only clients are heard there;
limits can be changed through the daemon's own ``control`` alone, which is why a container must not have that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import termios
from collections.abc import Iterator
from pathlib import Path

from dra_driver.simulation.hardware.mps.pipes import (
    CONTROL,
    Answer,
    Request,
    answer_to,
    open_fifo,
    read_lines,
    request_of,
)

TICKETS = ".tickets"
CLIENTS = ".clients"
TICKET_BYTES = 8

_READY = 8
_TICKET = re.compile(r"[0-9]{7}")


class NamespaceFolder:
    """Between :meth:`open` and :meth:`remove`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.control = -1
        self._tickets = -1
        self._next = 0
        self._unread = b""

    def open(self) -> None:
        """OSError when it cannot be made. What a killed daemon left is replaced."""
        shutil.rmtree(self.path, ignore_errors=True)
        for folder in (self.path, self.path / CLIENTS):
            folder.mkdir()
            folder.chmod(0o755)
        # For reading and writing: the end of one who asks is not the end of the file.
        self._tickets = _make_fifo(self.path / TICKETS, 0o644)
        self.top_up()
        self.control = _make_fifo(self.path / CONTROL, 0o666)

    def top_up(self) -> None:
        """As many tickets as should lie ready do, unless somebody took the folder away: then nobody can come."""
        if not self.path.is_dir():
            return
        waiting = int.from_bytes(fcntl.ioctl(self._tickets, termios.FIONREAD, bytes(4)), "little")
        for _ in range(_READY - waiting // TICKET_BYTES):
            ticket = f"{self._next:07d}"
            self._next += 1
            for end in ("in", "out"):
                fifo = self.path / CLIENTS / f"{ticket}.{end}"
                os.mkfifo(fifo)
                fifo.chmod(0o666)
            os.write(self._tickets, f"{ticket}\n".encode())

    def requests(self) -> Iterator[Request]:
        """What has come. What is no client's is dropped."""
        if self.control < 0:  # it was removed meanwhile
            return
        lines, self._unread = read_lines(self.control, self._unread)
        for request in map(request_of, lines):
            if request.kind == "client" and _TICKET.fullmatch(request.id):
                yield request

    def answer(self, ticket: str) -> Answer | None:
        return answer_to(self.path / CLIENTS / f"{ticket}.in")

    def lifeline(self, ticket: str) -> int | None:
        return open_fifo(self.path / CLIENTS / f"{ticket}.out", os.O_RDONLY)

    def remove(self) -> None:
        for descriptor in (self.control, self._tickets):
            if descriptor >= 0:
                os.close(descriptor)
        self.control = self._tickets = -1
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path)


def _make_fifo(path: Path, mode: int) -> int:
    os.mkfifo(path)
    path.chmod(mode)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK)
