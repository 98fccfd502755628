"""Paths under an injected root (a mounted host, a driver container's tree, a test's folder) resolved as chroot would.

The host's symbolic links are often absolute; followed by the kernel from inside our container they would leave the
mounted root. So links are followed here, one component at a time, and never above the root.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

_MOST_LINKS = 40  # the kernel's own limit (path_resolution(7))


def resolve_inside(root: Path, path: str) -> Path:
    """Where ``path`` (as seen from ``root``) really is, as a path under ``root``. It need not exist at its end.

    OSError (ELOOP) when links go round in a circle.
    """
    pending = [part for part in path.split("/") if part not in ("", ".")]
    resolved: list[str] = []
    links = 0
    while pending:
        part = pending.pop(0)
        if part == "..":
            if resolved:
                resolved.pop()
            continue
        candidate = root.joinpath(*resolved, part)
        if not candidate.is_symlink():
            resolved.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(root.joinpath(path.lstrip("/"))))
        target = os.readlink(candidate)
        if target.startswith("/"):
            resolved.clear()
        pending[:0] = [piece for piece in target.split("/") if piece not in ("", ".")]
    return root.joinpath(*resolved)
