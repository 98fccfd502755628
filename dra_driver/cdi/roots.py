"""Where the driver's files are: as this process sees them and as the host sees them.

A plugin in a container sees the host's driver root under another path (``/driver-root``), but CDI files name host
paths. Every path is kept as it is inside the root (``/usr/lib64/libcuda.so.1``) and put on either root when needed.
Typical driver roots of hosts: ``/``, ``/run/nvidia/driver`` (GPU Operator), ``/home/kubernetes/bin/nvidia`` (GKE).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dra_driver.hardware.rooted import resolve_inside, resolved


@dataclass(frozen=True, slots=True)
class Root:
    """One folder under two names. ``visible`` is this process's path to it, ``host`` the host's."""

    visible: Path
    host: str = "/"

    def visible_path(self, inner: str) -> Path:
        """Where this process has ``inner``, a path that starts at the root. For messages: links are not followed."""
        return self.visible / inner.lstrip("/")

    def real_path(self, inner: str) -> Path:
        """What this process opens for ``inner``: links followed inside the root. OSError (ELOOP) for a circle of links.

        Distributions put absolute links into the root (Debian's /etc/alternatives); followed from outside they would
        lead to other files.
        """
        return resolve_inside(self.visible, inner)

    def host_path(self, inner: str) -> str:
        """Where the host finds ``inner``."""
        return os.path.normpath(f"{self.host}/{inner}").replace("//", "/", 1)

    def resolve(self, inner: str) -> str | None:
        """``inner`` with all links followed inside the root; None when there is nothing, or a circle of links."""
        try:
            found = resolved(str(self.visible), inner)
        except OSError:
            return None
        return found if os.path.lexists(self.visible_path(found)) else None


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
        found = self.driver.resolve("/dev")
        return self.driver if found and self.driver.visible_path(found).is_dir() else self.fallback_dev
