"""System calls that Python 3.11 lacks: namespaces and mounts. Each raises OSError naming what it was about."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any, Final

# <linux/sched.h>, <linux/mount.h>
CLONE_FS: Final = 0x00000200
CLONE_NEWNS: Final = 0x00020000
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_SLAVE: Final = 1 << 19
MS_RELATIME: Final = 1 << 21
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8


def unshare(flags: int) -> None:
    """The calling thread gets its own of what ``flags`` name."""
    _checked("unshare", "namespaces", flags)


def enter_namespace(file: str) -> None:
    """The calling thread goes into the namespace of a file in /proc/PID/ns, of whatever kind it is."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked("setns", file, descriptor, 0)
    finally:
        os.close(descriptor)


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    def text(value: str | None) -> bytes | None:
        return None if value is None else os.fsencode(value)

    _checked("mount", target, text(source), text(target), text(kind), ctypes.c_ulong(flags), text(options))


def unmount(target: str, flags: int) -> None:
    _checked("umount2", target, os.fsencode(target), flags)


def _checked(function: str, about: str, *arguments: Any) -> None:
    call: Callable[..., int] = getattr(ctypes.CDLL(None, use_errno=True), function)
    if call(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}", about)
