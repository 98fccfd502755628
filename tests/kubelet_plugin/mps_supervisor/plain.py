"""Isolation and cgroups without any rights: mounts are only remembered, programs run where we do.

``test_isolation`` holds both kinds to the same words. ``RIGHTS`` says whether this process may use the real ones.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kubelet_plugin.mps_supervisor import kernel
from kubelet_plugin.mps_supervisor.namespaces import on_own_thread, spawn
from kubelet_plugin.mps_supervisor.surroundings import Program


def _may_mount() -> bool:
    try:
        on_own_thread(lambda: kernel.unshare(kernel.CLONE_FS | kernel.CLONE_NEWNS))
    except OSError:
        return False
    return os.getuid() == 0


RIGHTS = _may_mount()
needs_rights = pytest.mark.skipif(not RIGHTS, reason="mounts and namespaces need root with CAP_SYS_ADMIN")


class PlainIsolation:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.mounts: dict[Path, int] = {}

    def mount_tmpfs(self, folder: Path, size_kib: int) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(2, "no such folder", str(folder))
        with self._lock:
            self.mounts.setdefault(folder, size_kib)

    def unmount(self, folder: Path) -> None:
        with self._lock:
            self.mounts.pop(folder, None)

    def mounted_below(self, folder: Path) -> tuple[Path, ...]:
        with self._lock:
            inside = [each for each in self.mounts if each.is_relative_to(folder)]
        return tuple(sorted(inside, key=lambda each: len(each.parts), reverse=True))

    def start(
        self, program: Program, arguments: Sequence[str], *, standard_input: int, output: int
    ) -> subprocess.Popen[bytes]:
        return spawn(_where_we_are(program), arguments, standard_input=standard_input, output=output)


def _where_we_are(program: Program) -> Program:
    """With the folders that are bound elsewhere under their own names."""
    environment = dict(program.environment)
    for bind in program.surroundings.binds:
        for name, value in environment.items():
            if value == bind.target or value.startswith(f"{bind.target}/"):
                environment[name] = bind.source + value.removeprefix(bind.target)
    return replace(program, environment=environment)


class NoCgroups:
    """As where none can be written."""

    def move(self, pid: int, name: str) -> None:
        raise PermissionError(13, "no cgroup can be written here", f"/sys/fs/cgroup/{name}")

    def members(self, name: str) -> frozenset[int]:
        return frozenset()

    def remove(self, name: str) -> None:
        return None
