"""What a remembered answer is compared by: the state of each file it came from, never its age.

An answer kept for five minutes gave containers without device nodes after boot (NVIDIA's issue #1380).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from dra_driver.cdi.roots import Root

# File times are as coarse as the kernel's tick. What changed this recently may change again without a new time.
_SETTLED_NS = 50_000_000

FileState = tuple[int, int, int, int] | None
"""Device, inode, time of change, device number; None: nothing there."""


def state(root: Root, inner: str) -> FileState:
    """Of what ``inner`` leads to now, links followed inside the root."""
    try:
        found = os.stat(root.real_path(inner))
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_rdev


def identity(root: Root, inner: str) -> FileState:
    """As :func:`state`, for a file whose content does not matter."""
    found = state(root, inner)
    return None if found is None else (found[0], found[1], 0, found[3])


def settled(states: Iterable[FileState]) -> bool:
    """Whether an answer that was found after ``states`` may be remembered by them."""
    newest = max((state[2] for state in states if state), default=0)
    return time.time_ns() - newest > _SETTLED_NS
