"""The file of a unix socket: who is there, and how its path is made free before it is bound.

gRPC binds a path that another server still serves without a word, and takes the file away when it stops; so a path is
probed before it is bound.
"""

from __future__ import annotations

import errno
import socket
import stat
from enum import Enum, auto
from pathlib import Path

from dra_driver.errors import StateError

MAX_PATH_BYTES = 107  # sun_path without its final NUL
_PROBE_SECONDS = 1.0


class Listener(Enum):
    """What was found at a socket path."""

    ABSENT = auto()
    STALE = auto()  # a socket that nobody listens on
    ALIVE = auto()
    FOREIGN = auto()  # not a socket


def probe(path: Path) -> Listener:
    """Who is at ``path``. Any doubt (a timeout, a full backlog) counts as alive."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return Listener.ABSENT
    if not stat.S_ISSOCK(mode):
        return Listener.FOREIGN
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_PROBE_SECONDS)
        try:
            client.connect(str(path))
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                return Listener.STALE
            return Listener.ABSENT if error.errno == errno.ENOENT else Listener.ALIVE
    return Listener.ALIVE


def make_free(path: Path) -> None:
    """Make ``path`` ready to be bound: its folder exists, a dead instance's socket is gone.

    Raises :class:`StateError` when something else is in the way; nothing is removed then.
    """
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"folder {path.parent} for socket {path.name} cannot be made: {error.strerror}",
            hint="mount the kubelet's folder at the same path into the container",
        ) from error
    match probe(path):
        case Listener.STALE:
            path.unlink(missing_ok=True)
        case Listener.ALIVE:
            raise StateError(
                f"another process serves socket {path}",
                hint="one plugin per pod UID: stop the other instance, or give this one its pod UID",
            )
        case Listener.FOREIGN:
            raise StateError(f"{path} is in the way: it is not a socket", hint="remove it")
        case Listener.ABSENT:
            pass


def check_length(path: Path) -> Path:
    """``path``, if the kernel allows it for a socket. Raises :class:`StateError`."""
    if len(bytes(path)) > MAX_PATH_BYTES:
        raise StateError(
            f"socket path {path} has {len(bytes(path))} bytes, the kernel allows {MAX_PATH_BYTES}",
            hint="use a shorter kubelet root folder or driver name",
        )
    return path
