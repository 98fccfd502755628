"""What a remembered answer is compared by: the state of each file it came from, never its age.

An answer kept for five minutes gave containers without device nodes after boot (NVIDIA's issue #1380).
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from dra_driver.cdi.roots import Root
from dra_driver.hardware.rooted import resolved

# File times are as coarse as the kernel's tick. What changed this recently may change again without a new time.
_SETTLED_NS = 50_000_000

FileState = tuple[int, int, int, int] | None
"""Device, inode, time of change, device number; of a link to nothing its own; None: nothing there."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A path below a root, taken apart once: every prepare looks at some dozens of them."""

    root: str  # as this process sees it, without a slash at its end
    folder: str
    name: str


def watched(root: Root, inner: str) -> Watched:
    folder, name = os.path.split(f"/{inner.strip('/')}")
    return Watched(str(root.visible).rstrip("/"), folder, name)


class Look:
    """One look at many files, at one time: a folder is found once for all that is asked below it, and where there is
    none, nothing below it is asked for."""

    def __init__(self) -> None:
        self._folders: dict[tuple[str, str], str | None] = {}

    def state(self, place: Watched) -> FileState:
        """Of what ``place`` leads to now, links followed inside its root."""
        folder = self._folder(place.root, place.folder)
        if folder is None:
            return None
        try:
            found = os.lstat(f"{folder}/{place.name}")
        except OSError:
            return None
        if stat.S_ISLNK(found.st_mode):
            with suppress(OSError):  # it leads to nothing, or in a circle
                found = os.stat(place.root + resolved(place.root, f"{place.folder}/{place.name}"))
        return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_rdev

    def identity(self, place: Watched) -> FileState:
        """As :meth:`state`, for a file whose content does not matter."""
        found = self.state(place)
        return None if found is None else (found[0], found[1], 0, found[3])

    def _folder(self, root: str, inner: str) -> str | None:
        """Where it really is, as this process sees it; None where there is none."""
        if inner == "/":
            return root
        key = root, inner
        if key not in self._folders:
            self._folders[key] = self._find(root, inner)
        return self._folders[key]

    def _find(self, root: str, inner: str) -> str | None:
        above, _slash, name = inner.rpartition("/")
        parent = self._folder(root, above or "/")
        if parent is None:
            return None
        path = f"{parent}/{name}"
        try:
            if name != "..":
                os.readlink(path)
            return root + resolved(root, inner)
        except OSError as error:  # EINVAL: not a link; else nothing, or a circle of links
            return path if error.errno == errno.EINVAL else None


def settled(states: Iterable[FileState]) -> bool:
    """Whether an answer that was found after ``states`` may be remembered by them."""
    newest = max((state[2] for state in states if state), default=0)
    return time.time_ns() - newest > _SETTLED_NS
