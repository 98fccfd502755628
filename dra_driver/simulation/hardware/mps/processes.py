"""What /proc says of processes: whose a FIFO is, its name and its namespace."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_PROC = Path("/proc")


def holder_of(fifo: int, told: int) -> int:
    """The process (in our PID namespace) that holds the FIFO of descriptor ``fifo`` open; 0 when none can be seen.

    ``told`` is what the process says of itself, in its own namespace. The real server knows by the socket's
    credentials, and sees 0 too where it has not the host's PID namespace.
    """
    inode = os.fstat(fifo)
    wanted = (inode.st_dev, inode.st_ino)
    if _holds(told, wanted):
        return told
    mine = (os.getpid(), os.getppid())
    holders = [pid for pid in _pids() if pid not in mine and _holds(pid, wanted)]
    return min(holders, key=_began, default=0)  # its children may have it too


def name(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "-"


def namespace(pid: int) -> str:
    """The number of its PID namespace, as the real ``ps`` prints it."""
    try:
        return os.readlink(_PROC / str(pid) / "ns/pid").partition("[")[2].rstrip("]")
    except OSError:
        return "-"


def user_of(pid: int) -> int | None:
    """Whose process it is; None when it cannot be seen."""
    try:
        return os.stat(_PROC / str(pid)).st_uid
    except OSError:
        return None


def _pids() -> list[int]:
    return [int(each) for each in os.listdir(_PROC) if each.isdigit()]


def _holds(pid: int, wanted: tuple[int, int]) -> bool:
    folder = _PROC / str(pid) / "fd"
    try:
        names = os.listdir(folder)
    except OSError:  # it has ended, or belongs to somebody else
        return False
    for each in names:
        with contextlib.suppress(OSError):  # closed meanwhile
            found = os.stat(folder / each)
            if (found.st_dev, found.st_ino) == wanted:
                return True
    return False


def _began(pid: int) -> int:
    try:
        return int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0
