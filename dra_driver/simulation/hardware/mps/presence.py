"""Whether an MPS server is still there, for whoever reads the state, in any PID namespace.

The kernel frees a GPU however a process ends. A server that is killed together with its daemon cannot take itself out
of the state file, so each holds a flock on a file of its own beside it, and what is in the state of a server without
its lock counts no more.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Presence:
    """A server's own file: :meth:`begin`, and :meth:`end`, or the end of the process."""

    def __init__(self, state_file: Path, server: int) -> None:
        self._path = _path(state_file, server)
        self._descriptor = -1

    def begin(self) -> None:
        self._path.parent.mkdir(exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def end(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def has_ended(state_file: Path, server: int) -> bool:
    try:
        descriptor = os.open(_path(state_file, server), os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def forget(state_file: Path, server: int) -> None:
    """Remove what a server that was killed left."""
    _path(state_file, server).unlink(missing_ok=True)


def _path(state_file: Path, server: int) -> Path:
    return state_file.with_name(f"{state_file.name}.mps") / str(server)
