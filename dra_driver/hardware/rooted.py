"""Paths under an injected root (a mounted host, a driver container's tree, a test's folder) resolved as chroot would.

The host's symbolic links are often absolute; followed by the kernel from inside our container they would leave the
mounted root. So links are followed here, one component at a time, and never above the root. Whatever looks at a path of
the host asks here first: a second way of following links would find other files.
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
    return root / resolved(str(root), path).lstrip("/")


def resolved(root: str, path: str) -> str:
    """As :func:`resolve_inside`, but the answer is as seen from ``root`` too: it starts with "/"."""
    base = root.rstrip("/")
    pending = _parts(path)
    pending.reverse()
    done: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            del done[-1:]
            continue
        done.append(part)
        try:
            target = os.readlink(f"{base}/{'/'.join(done)}")
        except OSError:  # EINVAL: not a link; else there is nothing, which is for those to say who open it
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), f"{base}/{path.lstrip('/')}")
        if target.startswith("/"):
            done.clear()
        else:
            done.pop()
        pending += reversed(_parts(target))
    return "/" + "/".join(done)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
