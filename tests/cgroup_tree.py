"""Cgroups for tests: a plain folder tree that stands for cgroup v2, and real ones of this machine, where it may have
any."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dra_driver.hardware.cgroups import CgroupHierarchy
from tests.run_guard import mark

DRIVER = "615.71.09"
GIB = 1 << 30


def plain_tree(folder: Path) -> CgroupHierarchy:
    """What the adapter takes for a mount of cgroup v2."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.controllers").write_text("cpu memory dmem\n")
    return CgroupHierarchy(folder)


def made(hierarchy: CgroupHierarchy, name: str) -> Path:
    """A cgroup of a plain tree, as where runc has enabled the dmem controller for it and all above."""
    cgroup = hierarchy.root / name
    cgroup.mkdir(parents=True)
    for each in (cgroup, *hierarchy.ancestors(cgroup)):
        (each / "dmem.max").touch()
    return cgroup


def remove(cgroup: Path) -> None:
    """As the runtime does: a directory of the kernel's goes with the files in it."""
    for file in cgroup.iterdir():
        file.unlink()
    cgroup.rmdir()


def _mount_of_v2() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 ") and before.split()[3] == "/":
            return Path(before.split()[4])
    return None


V2 = _mount_of_v2() if os.geteuid() == 0 else None
needs_v2 = pytest.mark.skipif(V2 is None, reason="making cgroups needs root and a mount of cgroup v2")


class RealCgroups:
    """Below one folder of its own, which goes with all that is in it."""

    def __init__(self) -> None:
        assert V2 is not None
        self.hierarchy = CgroupHierarchy(V2)
        self.top = V2 / f"gpu-dra-test-{os.getpid()}"
        self.top.mkdir()
        self._processes: list[subprocess.Popen[str]] = []

    def make(self, name: str) -> Path:
        cgroup = self.top / name
        cgroup.mkdir(parents=True)
        return cgroup

    def start(self, cgroup: Path, command: Sequence[str], **environment: str) -> subprocess.Popen[str]:
        """A process that is in ``cgroup`` from its first instruction."""
        process = subprocess.Popen(
            ["/bin/sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(cgroup), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], **mark(), **environment},
        )
        self._processes.append(process)
        return process

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        for folder, _folders, _files in os.walk(self.top, topdown=False):
            self._remove(Path(folder))

    @staticmethod
    def _remove(cgroup: Path) -> None:
        deadline = time.monotonic() + 20
        while cgroup.is_dir():
            with contextlib.suppress(OSError):  # what was killed in it has not quite ended
                cgroup.rmdir()
            assert time.monotonic() < deadline, f"{cgroup} cannot be removed"
            time.sleep(0.01)


@pytest.fixture
def real_cgroups() -> Iterator[RealCgroups]:
    cgroups = RealCgroups()
    yield cgroups
    cgroups.close()
