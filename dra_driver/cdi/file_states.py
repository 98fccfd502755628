"""What a remembered answer is compared by: the state of each file it came from, never its age.

An answer kept for five minutes gave containers without device nodes after boot (NVIDIA's issue #1380).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable

from dra_driver.cdi.roots import Root

# File times are as coarse as the kernel's tick. What changed this recently may change again without a new time.
_SETTLED_NS = 50_000_000

FileState = tuple[int, int, int, int] | None
"""Device, inode, time of change, device number; None: nothing there."""


class Look:
    """One look at many files, at one time: the links of a folder are followed once for all that is asked in it."""

    def __init__(self) -> None:
        self._folders: dict[tuple[Root, str], str | None] = {}

    def state(self, root: Root, inner: str) -> FileState:
        """Of what ``inner`` leads to now, links followed inside the root."""
        folder, name = os.path.split(inner)
        where = self._folder(root, folder)
        if where is None:
            return None
        try:
            found = os.lstat(f"{where}/{name}")
            if stat.S_ISLNK(found.st_mode):
                found = os.stat(root.real_path(inner))
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_rdev

    def identity(self, root: Root, inner: str) -> FileState:
        """As :meth:`state`, for a file whose content does not matter."""
        found = self.state(root, inner)
        return None if found is None else (found[0], found[1], 0, found[3])

    def _folder(self, root: Root, folder: str) -> str | None:
        key = root, folder
        if key not in self._folders:
            try:
                self._folders[key] = str(root.real_path(folder))
            except OSError:  # a circle of links
                self._folders[key] = None
        return self._folders[key]


def settled(states: Iterable[FileState]) -> bool:
    """Whether an answer that was found after ``states`` may be remembered by them."""
    newest = max((state[2] for state in states if state), default=0)
    return time.time_ns() - newest > _SETTLED_NS
