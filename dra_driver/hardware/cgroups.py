"""The cgroup hierarchy in which GPU memory is limited: where it is mounted, and which cgroup of it a process is in.

The driver limits memory in cgroup v2 only, mounted at /sys/fs/cgroup (NVIDIA, MPS v3 Memory Partitioning). A simulated
node may let other folders stand in for it; it says so itself, and nothing here guesses.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dra_driver.errors import HardwareError

_NAMESPACE_HINT = "run the plugin in the host's cgroup namespace: privileged, or with hostPID"


@dataclass(frozen=True, slots=True)
class CgroupHierarchy:
    """``root``: where it is mounted. ``stands_in``: "" for cgroup v2, or the controller of a v1 hierarchy that a
    simulated node takes for it."""

    root: Path = Path("/sys/fs/cgroup")
    stands_in: str = ""

    def problem(self) -> str | None:
        """Why no memory can be limited in it, in words; None when it is what it should be.

        The kernel says so: cgroup.controllers is at the root of cgroup v2 alone (kernel, cgroup-v2.rst).
        """
        if self.stands_in:
            return None if self.root.is_dir() else f"the cgroup hierarchy {self.root} is not there"
        if (self.root / "cgroup.controllers").exists():
            return None
        return f"cgroup v2 is not mounted at {self.root}, and GPU memory is limited in cgroup v2 only"

    def of_process(self, text: str) -> Path:
        """The cgroup that ``text``, what /proc/PID/cgroup says, names. Raises HardwareError."""
        inside = self._inside(text)
        if inside is None:
            wanted = f"the v1 hierarchy {self.stands_in}" if self.stands_in else "cgroup v2"
            raise HardwareError(f"the process is in no cgroup of {wanted}")
        if ".." in inside.split("/"):
            raise HardwareError(f"the process's cgroup {inside} is outside of what is seen here", hint=_NAMESPACE_HINT)
        if inside.strip("/") == "":
            raise HardwareError("the process is in the root cgroup, whose memory cannot be limited")
        return self.root / inside.strip("/")

    def reserves_above(self, cgroup: Path) -> bool:
        """Whether a soft limit below ``cgroup`` is added to ``cgroup``'s own, as the dmem backend does.

        The misc backend has no hierarchy. Which one it is, NVIDIA's page says, a cgroup's dmem.max tells.
        """
        return bool(self.stands_in) or (cgroup / "dmem.max").exists()

    def ancestors(self, cgroup: Path) -> tuple[Path, ...]:
        """Those above ``cgroup``, nearest first, without the root."""
        above = cgroup.relative_to(self.root).parents
        return tuple(self.root / each for each in above if each.parts)

    def _inside(self, text: str) -> str | None:
        for line in text.splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if self.stands_in in controllers.split(",") if self.stands_in else (number, controllers) == ("0", ""):
                return path
        return None


def inode(cgroup: Path) -> int | None:
    """What tells a cgroup from a later one of the same name; None when it is gone."""
    try:
        return os.stat(cgroup).st_ino
    except (FileNotFoundError, NotADirectoryError):
        return None
