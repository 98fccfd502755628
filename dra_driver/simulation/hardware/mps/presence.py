"""Whether a process that has taken devices is still there, for whoever reads the state, in any PID namespace.

The kernel frees a GPU however a process ends. One that is killed cannot take itself out of the state file, so each that
writes itself there holds a flock on a file of its own beside it, and what it has there counts no more without its lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path


class Presence:
    """This process's own file: :meth:`begin`, and :meth:`end`, or the end of the process.

    ``holder`` is its name, which no other process gets: process numbers are only one's own in a PID namespace.
    """

    def __init__(self, state_file: Path) -> None:
        self.holder = f"{os.getpid()}-{os.urandom(8).hex()}"
        self._path = _path(state_file, self.holder)
        self._descriptor = -1

    def begin(self) -> None:
        self._path.parent.mkdir(exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def end(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def ended(state_file: Path, holders: Iterable[str | None]) -> frozenset[str]:
    """Those of ``holders`` that are there no more."""
    return frozenset(each for each in set(holders) if each is not None and _has_ended(_path(state_file, each)))


def forget(state_file: Path, holders: Iterable[str]) -> None:
    """Remove what ``holders`` that were killed have left."""
    for each in holders:
        _path(state_file, each).unlink(missing_ok=True)


def _has_ended(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _path(state_file: Path, holder: str) -> Path:
    return state_file.with_name(f"{state_file.name}.users") / holder
