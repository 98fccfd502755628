"""The cgroups of a machine: one subtree of its own in every hierarchy, version 1 or 2.

``enter`` moves a process into the subtree before its namespaces are made, so that the cgroup namespace has the subtree
as its root; ``mount_inside`` mounts it there; ``remove`` takes it away once all its processes are gone.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
# What kubelet, containerd and runc use of version 1; other hierarchies of the host stay out of sight.
_V1_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
_V1_NAMED = "systemd"
_REMOVE_SECONDS = 10.0


def is_version_2() -> bool:
    """Whether this host has the unified hierarchy only."""
    return (ROOT / "cgroup.controllers").exists()


def folders(name: str) -> list[Path]:
    """Where the subtree ``name`` is or would be."""
    if is_version_2():
        return [ROOT / name]
    return [ROOT / controller / name for controller in (*_V1_CONTROLLERS, _V1_NAMED) if (ROOT / controller).is_dir()]


def enter(name: str, pid: int) -> None:
    """Make the subtree ``name`` and move process ``pid`` into it. Raises OSError when that is not allowed."""
    if is_version_2():
        _delegate(ROOT)
    for folder in folders(name):
        folder.mkdir(exist_ok=True)
        if folder.parent.name == "cpuset":
            # A new cpuset is empty, and an empty one takes no process.
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (folder / setting).write_text((folder.parent / setting).read_text())
            (folder / "cgroup.clone_children").write_text("1")
        (folder / "cgroup.procs").write_text(f"{pid}\n")


def mount_inside() -> None:
    """Give this cgroup namespace its own ``/sys/fs/cgroup``. Raises CalledProcessError."""
    if is_version_2():
        _mount("-t", "cgroup2", "cgroup2", str(ROOT))
        # Controllers can be handed down only from a cgroup without processes (cgroup-v2.rst, no internal processes).
        leaf = ROOT / "init"
        leaf.mkdir(exist_ok=True)
        for pid in (ROOT / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (leaf / "cgroup.procs").write_text(pid)
        _delegate(ROOT)
        return
    there = [controller for controller in _V1_CONTROLLERS if (ROOT / controller).is_dir()]
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(ROOT))
    for controller in there:
        (ROOT / controller).mkdir()
        _mount("-t", "cgroup", "-o", controller, "cgroup", str(ROOT / controller))
    (ROOT / _V1_NAMED).mkdir()
    _mount("-t", "cgroup", "-o", f"none,name={_V1_NAMED}", "cgroup", str(ROOT / _V1_NAMED))


def remove(name: str) -> list[Path]:
    """Remove the subtree ``name``, which must have no process any more; returns what could not be removed."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    while left := [folder for folder in folders(name) if folder.exists()]:
        for folder in left:
            for path, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(path)
        if time.monotonic() > deadline:
            return [folder for folder in left if folder.exists()]
        if any(folder.exists() for folder in left):
            time.sleep(0.1)
    return []


def processes(name: str) -> set[int]:
    """Pids, as seen from here, of all processes below the subtree ``name``."""
    found: set[int] = set()
    for folder in folders(name):
        for path, _, files in os.walk(folder):
            if "cgroup.procs" in files:
                with contextlib.suppress(OSError):
                    found.update(int(pid) for pid in Path(path, "cgroup.procs").read_text().split())
    return found - {0}


def _delegate(folder: Path) -> None:
    available = (folder / "cgroup.controllers").read_text().split()
    for controller in available:
        with contextlib.suppress(OSError):  # one that cannot be handed down here is not needed
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
