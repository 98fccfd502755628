"""Who is connected to a unix socket that this process serves. gRPC for Python does not tell.

Connections are found among this process's own file descriptors. The list in /proc/self/net/unix would not do: an
accepted unix socket belongs to the network namespace of the side that connected, so a process with a network namespace
of its own does not see others' connections there.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True)
class Peer:
    """``pid`` is 0 for a process outside our process id namespace."""

    pid: int
    uid: int


def peers(path: Path) -> tuple[Peer, ...] | None:
    """The other sides of all accepted connections on the unix socket ``path``; None when they cannot be listed."""
    try:
        descriptors = [int(name) for name in os.listdir(_DESCRIPTORS)]
    except (FileNotFoundError, PermissionError):
        return None
    found = (_peer(descriptor, str(path)) for descriptor in descriptors)
    return tuple(peer for peer in found if peer is not None)


def _peer(descriptor: int, path: str) -> Peer | None:
    try:
        # The descriptor stays gRPC's: it is looked at by number, never duplicated, and given back by detach().
        peek = socket.socket(fileno=descriptor)
    except OSError:
        return None  # not a socket, or closed since it was listed
    try:
        if peek.family != socket.AF_UNIX or peek.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return None
        if peek.getsockname() != path:
            return None
        peek.getpeername()  # raises for a socket that never was connected; gRPC closes one whose other side is gone
        said = peek.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(said)
        return Peer(pid, uid)
    except OSError:
        return None
    finally:
        peek.detach()
