"""The pipe directory: the files that the daemon keeps there, and how others speak with it through them.

Names and rights are the real daemon's (control, control_lock, control_privileged, log, nvidia-cuda-mps-control.pid),
but control is a FIFO, and there is ``clients``, a folder like /tmp for the FIFOs of those who ask.

Who asks makes ``clients/<id>.in``, and a client of a server ``clients/<id>.out`` too, opens them, and writes one line
into control: ``command ID TEXT`` or ``client ID WORD...``. On ``.in`` comes "taken", so that the asker may close its
own end of it, then "ok" or "error", then lines for people; the end of the file is the end of the answer, or of who was
to answer. A client holds ``.out`` open for as long as it uses the GPU, so the kernel tells the server of its end. The
daemon removes the FIFOs when it has opened them.

The daemon holds a flock on control_lock while it lives, which keeps out a second one. Whoever asks sees by control
whether there is one, also in another PID namespace: what a killed daemon left cannot be opened one way without waiting.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CONTROL = "control"
_PRIVILEGED = "control_privileged"
_LOCK = "control_lock"
LOG = "log"
_PID = "nvidia-cuda-mps-control.pid"
CLIENTS = "clients"

_DEFAULT = "/tmp/nvidia-mps"  # noqa: S108 - the real one's
_ID = re.compile(r"[0-9]+\.[0-9]+")


def pipe_directory(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("CUDA_MPS_PIPE_DIRECTORY") or _DEFAULT).absolute()


@dataclass(frozen=True, slots=True)
class Request:
    """One line of control. ``kind``: command or client."""

    kind: str
    id: str
    text: str


class PipeDirectory:
    """The daemon's side. :meth:`lock`, then :meth:`open`; :meth:`remove` at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.control = -1
        self._lock = -1
        self._unread = b""

    def lock(self) -> bool:
        """Whether no other daemon has this directory. OSError when it cannot be made."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        os.fchmod(self._lock, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            return False
        return True

    def open(self) -> None:
        """From now on requests are taken. What a killed daemon left is replaced."""
        self._remove_clients()
        (self.path / CLIENTS).mkdir(exist_ok=True)
        (self.path / CLIENTS).chmod(0o1777)
        for name, mode in ((_PRIVILEGED, 0o755), (LOG, 0o777), (CONTROL, 0o666)):
            (self.path / name).unlink(missing_ok=True)
            os.mkfifo(self.path / name)
            (self.path / name).chmod(mode)
        # For reading and writing: the end of one who asks is not the end of the file.
        self.control = os.open(self.path / CONTROL, os.O_RDWR | os.O_NONBLOCK)
        (self.path / _PID).write_text(f"{os.getpid()}\n")

    def requests(self) -> Iterator[Request]:
        """What has come. A line that is no request is dropped: anybody may write there."""
        lines, self._unread = read_lines(self.control, self._unread)
        for request in map(request_of, lines):
            if request.kind in ("command", "client") and _ID.fullmatch(request.id):
                yield request

    def answer(self, identifier: str) -> Answer | None:
        """Where the answer to a request goes; None when who asked is gone."""
        return answer_to(self.path / CLIENTS / f"{identifier}.in")

    def lifeline(self, identifier: str) -> int | None:
        """What a client holds open while it lives; None when it is gone."""
        return open_fifo(self.path / CLIENTS / f"{identifier}.out", os.O_RDONLY)

    def remove(self) -> None:
        for name in (_PID, CONTROL, _PRIVILEGED, LOG):
            (self.path / name).unlink(missing_ok=True)
        self._remove_clients()

    def _remove_clients(self) -> None:
        folder = self.path / CLIENTS
        # It may not be there, and somebody may ask at this very moment: the FIFO goes with the pipe directory.
        with contextlib.suppress(OSError):
            for fifo in folder.iterdir():
                fifo.unlink(missing_ok=True)
            folder.rmdir()


class Answer:
    """The way to one who asked. What is not read in time, or by nobody any more, is dropped: nobody waits for them."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.owner = os.fstat(descriptor).st_uid

    def send(self, *lines: str) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self.descriptor, "".join(f"{line}\n" for line in lines).encode())

    def close(self) -> None:
        os.close(self.descriptor)


def answer_to(fifo: Path) -> Answer | None:
    """The way to one who asked, who is told that the request was taken; None when who asked is gone."""
    descriptor = open_fifo(fifo, os.O_WRONLY)
    if descriptor is None:
        return None
    answer = Answer(descriptor)
    answer.send("taken")
    return answer


def read_lines(descriptor: int, unread: bytes) -> tuple[list[bytes], bytes]:
    """The whole lines that have come, after what was ``unread``, and what of a line is left. Waits for nothing."""
    while True:
        try:
            unread += os.read(descriptor, 65536)
        except BlockingIOError:
            break
    *lines, left = unread.split(b"\n")
    return lines, left


def request_of(line: bytes) -> Request:
    """A line as a request, whether or not it is one."""
    kind, _, rest = line.decode(errors="replace").partition(" ")
    identifier, _, text = rest.partition(" ")
    return Request(kind, identifier, text)


def open_fifo(path: Path, flags: int) -> int | None:
    """The open FIFO, which is not in its folder any more; None where there is none that somebody holds."""
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:  # it is gone, or ends without having read
        path.unlink(missing_ok=True)
        return None
    path.unlink(missing_ok=True)
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None
