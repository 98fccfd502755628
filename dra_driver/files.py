"""Files that are whole or absent: a write is a temporary file in the same folder, fsync, rename, fsync of the folder.

Same folder, since the runtimes' CDI watch may miss a file renamed in from another one (CNCF CDI, pkg/cdi/watch), and a
temporary name they do not read (a leading dot and no .json or .yaml at its end).
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` with ``data``; durable on return. On any error the old content is still there.

    Raises OSError with the path that failed; no temporary file is left.
    """
    temporary = _temporary(path)
    try:
        _write(temporary, data, mode, sync=os.fsync)
        os.rename(temporary, path)
    except BaseException:
        _discard(temporary)
        raise
    sync_folder(path.parent)


def replace_whole(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """As :func:`write_atomically` for readers, but not on disk yet: for what a power cut may take, or on a tmpfs."""
    temporary = _temporary(path)
    try:
        _write(temporary, data, mode, sync=lambda _descriptor: None)
        os.rename(temporary, path)
    except BaseException:
        _discard(temporary)
        raise


def target_of_temporary(name: str) -> str | None:
    """The file that a temporary file named ``name`` was meant to become; None when it is no temporary file of ours.

    A process that is killed while it writes leaves one; whoever owns the folder removes it.
    """
    match = _TEMPORARY.fullmatch(name)
    return match[1] if match else None


def sync_folder(folder: Path) -> None:
    """Make renames and removals inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> str:
    """A name of its own for each write. Random: two plugins that share a folder may have the same process id."""
    return f"{path.parent}/.{path.name}.{secrets.token_hex(4)}.tmp"


def _write(temporary: str, data: bytes, mode: int, sync: Callable[[int], None]) -> None:
    # Plain descriptors: this is on the way of every prepare, and file objects cost as much again as the disk does.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)  # whatever the umask says
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        sync(descriptor)
    finally:
        os.close(descriptor)


def _discard(temporary: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
