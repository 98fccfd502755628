"""Files that are whole or absent: a write is a temporary file in the same folder that is renamed over the old one.

Same folder, since the runtimes' CDI watch may miss a file renamed in from another one (CNCF CDI, pkg/cdi/watch), and a
temporary name they do not read (a leading dot and no .json or .yaml at its end). Readers and killed writers never see
half a file; what a power cut may do is the caller's choice.
"""

from __future__ import annotations

import contextlib
import os
import re
from enum import IntEnum
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_IN_MEMORY = ("tmpfs", "ramfs")
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")


class Durability(IntEnum):
    """What a power cut right after the write may do to the file."""

    NONE = 0  # anything: for a tmpfs, or for what is made again at the next start
    WHOLE = 1  # bring the old content back, whole (fsync of the file)
    LASTING = 2  # nothing (fsync of the folder too)


def write_atomically(
    path: Path, data: bytes, *, mode: int = 0o644, durability: Durability = Durability.LASTING
) -> None:
    """Replace ``path`` with ``data``. On an error no temporary file is left and the old content is still there.

    One exception: when only the last fsync, of the folder, fails, the new content is there but not yet LASTING.
    Raises OSError with the path that failed.
    """
    # Random: two plugins that share a folder may have the same process id.
    temporary = f"{path.parent}/.{path.name}.{os.urandom(4).hex()}.tmp"
    try:
        _write(temporary, data, mode, durability)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if durability is Durability.LASTING:
        sync_folder(path.parent)


def target_of_temporary(name: str) -> str | None:
    """The file that a temporary file named ``name`` was meant to become; None when it is no temporary file of ours.

    A process that is killed while it writes leaves one; whoever owns the folder removes it.
    """
    match = _TEMPORARY.fullmatch(name)
    return match[1] if match else None


def _write(path: str, data: bytes, mode: int, durability: Durability) -> None:
    # Plain descriptors: this is on the way of every prepare, and file objects cost as much again as the disk does.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)  # whatever the umask says
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        if durability is not Durability.NONE:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_volatile(folder: Path) -> bool:
    """Whether a power cut empties ``folder``, which need not be there yet: it is on a tmpfs. False where that cannot be
    told (proc(5), mountinfo)."""
    try:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        device = os.stat(there).st_dev
        mounts = _MOUNTS.read_text().splitlines()
    except (OSError, StopIteration):
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    fields = (mount.split(" ") for mount in mounts)
    return any(each[2] == number and each[each.index("-", 6) + 1] in _IN_MEMORY for each in fields)


def sync_folder(folder: Path) -> None:
    """Which files are in ``folder`` survives a power cut from now on. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
