"""Where this plugin's two unix sockets are, and which of them dead instances have left.

Names carry the pod's UID, so that the old and the new pod of a rolling update run side by side (kubelet 1.33 and
later): ``dra-<podUID>.sock`` in the plugin folder and ``<driver>-<podUID>-reg.sock`` in the registry folder, with the
shortened forms of the Go helper (staging kubeletplugin/draplugin.go) when a path would pass the 107 bytes that the
kernel allows. Without a pod UID the names are those of NVIDIA's driver.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kubelet_plugin.node.socket_file import MAX_PATH_BYTES, Listener, check_length, probe

logger = logging.getLogger(__name__)

_SECOND_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class SocketPaths:
    """Absolute paths that must be the same on the host and in the container."""

    dra: Path
    registration: Path


def socket_paths(driver: str, plugins_dir: Path, registry_dir: Path, pod_uid: str = "") -> SocketPaths:
    """The paths for ``driver``. Raises :class:`StateError` when even the shortest form is too long."""
    folder = plugins_dir / driver
    if not pod_uid:
        paths = SocketPaths(folder / "dra.sock", registry_dir / f"{driver}-reg.sock")
        check_length(paths.dra)
        check_length(paths.registration)
        return paths
    dra_names = (f"dra-{pod_uid}.sock", f"dra-{_short_hash(pod_uid, 8)}.sock")
    registration_names = (
        f"{driver}-{pod_uid}-reg.sock",
        f"{driver}-{_short_hash(pod_uid, 8)}-reg.sock",
        f"dra-{_short_hash(f'{driver}{chr(0)}{pod_uid}', 16)}-reg.sock",
    )
    return SocketPaths(_first_that_fits(folder, dra_names), _first_that_fits(registry_dir, registration_names))


def remove_stale(driver: str, paths: SocketPaths, *, wait: Callable[[float], None] = time.sleep) -> tuple[Path, ...]:
    """Remove sockets that dead instances of this driver left; those removed are returned.

    A socket is dead when two looks a moment apart find nobody listening: between bind and listen a living one refuses
    too. A registration socket in its shortest form does not name its driver and is left alone.
    """
    candidates = [path for path in _instance_sockets(driver, paths) if probe(path) is Listener.STALE]
    if not candidates:
        return ()
    wait(_SECOND_LOOK_SECONDS)
    removed = []
    for path in candidates:
        if probe(path) is not Listener.STALE:
            continue
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            removed.append(path)
            logger.info("removed the socket of a dead plugin instance", extra={"path": str(path)})
    return tuple(removed)


def _instance_sockets(driver: str, paths: SocketPaths) -> Iterable[Path]:
    yield from (path for path in sorted(paths.dra.parent.glob("dra*.sock")) if path != paths.dra)
    registration = {paths.registration.parent / f"{driver}-reg.sock"}
    registration.update(paths.registration.parent.glob(f"{driver}-*-reg.sock"))
    yield from sorted(registration - {paths.registration})


def _first_that_fits(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names[:-1]:
        if len(bytes(folder / name)) <= MAX_PATH_BYTES:
            return folder / name
    return check_length(folder / names[-1])


def _short_hash(text: str, length: int) -> str:
    digest = hashlib.sha256(text.encode()).digest()[:length]
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
