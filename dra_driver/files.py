"""Files that are whole or absent: a write is a temporary file in the same folder, fsync, rename, fsync of the folder.

Same folder, since the runtimes' CDI watch may miss a file renamed in from another one (CNCF CDI, pkg/cdi/watch), and a
temporary name they do not read (a leading dot and no .json or .yaml at its end).
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.tmp")  # mkstemp's eight characters


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` with ``data``. On any error the old content is still there and no temporary file is left.

    Raises OSError with the path that failed.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def target_of_temporary(name: str) -> str | None:
    """The file that a temporary file named ``name`` was meant to become; None when it is no temporary file of ours.

    A process that is killed while it writes leaves one; whoever owns the folder removes it.
    """
    match = _TEMPORARY.fullmatch(name)
    return match[1] if match else None


def remove_durably(path: Path) -> bool:
    """Remove ``path``; True when it was there. The removal is on disk when this returns."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Make renames and removals inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
