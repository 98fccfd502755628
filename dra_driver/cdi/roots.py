"""Where the driver's files are: as this process sees them and as the host sees them.

A plugin in a container sees the host's driver root under another path (``/driver-root``), but CDI files name host
paths. Every path is kept as it is inside the root (``/usr/lib64/libcuda.so.1``) and put on either root when needed.
Typical driver roots of hosts: ``/``, ``/run/nvidia/driver`` (GPU Operator), ``/home/kubernetes/bin/nvidia`` (GKE).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_MAX_LINKS = 40  # as the kernel's limit (path_resolution(7))


@dataclass(frozen=True, slots=True)
class Root:
    """One folder under two names. ``visible`` is this process's path to it, ``host`` the host's."""

    visible: Path
    host: str = "/"

    def visible_path(self, inner: str) -> Path:
        """Where this process finds ``inner``, a path that starts at the root."""
        return self.visible / inner.lstrip("/")

    def host_path(self, inner: str) -> str:
        """Where the host finds ``inner``."""
        return os.path.normpath(f"{self.host}/{inner}").replace("//", "/", 1)

    def resolve(self, inner: str) -> str | None:
        """``inner`` with all symbolic links followed inside the root, as after chroot; None when there is nothing.

        Distributions put absolute links into the root (Debian's /etc/alternatives); followed from outside they would
        lead to other files.
        """
        done: list[str] = []
        todo = [part for part in inner.split("/") if part not in ("", ".")]
        links = 0
        while todo:
            part = todo.pop(0)
            if part == "..":
                done = done[:-1]
                continue
            here = "/" + "/".join([*done, part])
            try:
                target = os.readlink(self.visible_path(here))
            except FileNotFoundError:
                return None
            except OSError:  # EINVAL: not a link
                done.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                return None
            if target.startswith("/"):
                done = []
            todo = [piece for piece in target.split("/") if piece not in ("", ".")] + todo
        resolved = "/" + "/".join(done)
        return resolved if self.visible_path(resolved).exists() else None


@dataclass(frozen=True, slots=True)
class DriverRoots:
    """The driver root, the root that holds ``/dev``, and sysfs as this process sees it."""

    driver: Root
    fallback_dev: Root = Root(Path("/"))
    sysfs: Path = Path("/sys")

    def dev(self) -> Root:
        """The driver root when it has a ``/dev`` of its own, else the fallback (nvidia-container-toolkit's devRoot).

        Asked anew each time: a driver container's root may be mounted after this process has started.
        """
        return self.driver if self.driver.visible_path("/dev").is_dir() else self.fallback_dev
