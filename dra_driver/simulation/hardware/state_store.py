"""How the state file is locked and replaced, whoever knows its content: ``state_file``, and the programs of ``mps``.

Writers take an exclusive flock on ``<file>.lock`` and replace the file whole, so readers never lock and never see half
a state; a process killed with -9 leaves the last whole state. Imports little, since those programs start in
milliseconds.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dra_driver.files import Durability, write_atomically


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Nobody else writes the state file at ``path`` meanwhile. Not to be nested."""
    with path.with_name(path.name + ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def put(path: Path, data: bytes) -> None:
    """Replace the file, under :func:`exclusively`."""
    # A simulation survives no power cut, so nothing waits for the disk.
    write_atomically(path, data, durability=Durability.NONE)
    # The kernel's clock ticks every few milliseconds, and inode numbers are given again: two states within one tick
    # could look like one file. So each is stamped with a time of its own.
    now = time.time_ns()
    os.utime(path, ns=(now, now))
