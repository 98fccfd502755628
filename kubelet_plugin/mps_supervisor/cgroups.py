"""A cgroup of its own for each group's daemon, so that it does not end with the supervisor's container.

When a container ends, the runtime kills every process in the container's cgroup, whatever its PID namespace, and cannot
remove the cgroup while something is left in it. So a daemon is moved to a folder of its own in ``gpu-dra-mps``, at the
root of every hierarchy in which it is not at the root already: the one of cgroup v2, or each controller's of v1. Its
servers are its children and follow.

Within a container's cgroup namespace processes cannot be moved out of it (cgroups(7), nsdelegate), nor need the
hierarchies be writable there. So all of this is done in the host's namespaces, where there are some around us.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from dra_driver.mps.group import GroupFolders
from kubelet_plugin.mps_supervisor import kernel
from kubelet_plugin.mps_supervisor.namespaces import on_own_thread

T = TypeVar("T")

PARENT = "gpu-dra-mps"

_PROCESSES = "cgroup.procs"
_INHERITED = ("cpuset.cpus", "cpuset.mems")  # of v1, where they are empty in a new cgroup and nothing may run in it
_TRIES = 5  # another supervisor may remove the parent between our making it and what is in it


def cgroup_of(folders: GroupFolders) -> str:
    """The name of a group's cgroup: another driver's supervisor on this node may have a group of the same id."""
    return f"{folders.root.name}.{hashlib.sha256(bytes(folders.root)).hexdigest()[:8]}"


class OwnCgroups(Protocol):
    """Cgroups of ours by name. What fails raises OSError."""

    def move(self, pid: int, name: str) -> None:
        """The process is in that cgroup, which is made, and in no container's."""
        ...

    def members(self, name: str) -> frozenset[int]:
        """The processes in it; none where there is no such cgroup."""
        ...

    def remove(self, name: str) -> None:
        """It is gone, or was not there. OSError (EBUSY) while it has processes."""
        ...


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """``controllers``: as the mount's options have them; none for cgroup v2."""

    controllers: frozenset[str]
    root: Path

    def is_of(self, named: str) -> bool:
        """Whether it is the one that /proc/PID/cgroup calls ``named``: "cpu,cpuacct", "name=systemd", "" for v2."""
        return frozenset(named.split(",")) <= self.controllers if named else not self.controllers


class Cgroups:
    """The real :class:`OwnCgroups`. ``namespaces``: the host's, where they are not ours."""

    def __init__(self, namespaces: Path | None) -> None:
        self._namespaces = namespaces

    def move(self, pid: int, name: str) -> None:
        def act() -> None:
            for hierarchy, inside in _cgroups_of(pid):
                if inside not in ("/", f"/{PARENT}/{name}"):
                    (_made(hierarchy, name) / _PROCESSES).write_text(str(pid))

        self._on_host(act)

    def members(self, name: str) -> frozenset[int]:
        def act() -> frozenset[int]:
            found: set[int] = set()
            for hierarchy in _hierarchies():
                with contextlib.suppress(FileNotFoundError):
                    found.update(int(pid) for pid in (hierarchy.root / PARENT / name / _PROCESSES).read_text().split())
            return frozenset(found)

        return self._on_host(act)

    def remove(self, name: str) -> None:
        def act() -> None:
            for hierarchy in _hierarchies():
                with contextlib.suppress(FileNotFoundError):
                    (hierarchy.root / PARENT / name).rmdir()
                try:
                    (hierarchy.root / PARENT).rmdir()
                except OSError as error:  # not there; or other groups' are in it
                    if error.errno not in (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY, errno.EROFS, errno.EACCES):
                        raise

        self._on_host(act)

    def _on_host(self, act: Callable[[], T]) -> T:
        def entered() -> T:
            if self._namespaces is not None:
                kernel.unshare(kernel.CLONE_FS)
                for kind in ("cgroup", "mnt"):
                    kernel.enter_namespace(f"{self._namespaces}/{kind}")
            return act()

        return on_own_thread(entered)


def _hierarchies() -> Iterator[_Hierarchy]:
    """Those that this thread sees from their root (proc(5), mountinfo)."""
    for line in Path("/proc/thread-self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _source, options) = before.split(), after.split(maxsplit=2)
        if kind in ("cgroup", "cgroup2") and fields[3] == "/":
            yield _Hierarchy(frozenset(options.split(",")) if kind == "cgroup" else frozenset(), Path(fields[4]))


def _cgroups_of(pid: int) -> Iterator[tuple[_Hierarchy, str]]:
    """Where a process is in each hierarchy."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    for hierarchy in _hierarchies():
        for _number, named, inside in lines:
            if hierarchy.is_of(named):
                yield hierarchy, inside


def _made(hierarchy: _Hierarchy, name: str) -> Path:
    parent = hierarchy.root / PARENT
    for tries_left in reversed(range(_TRIES)):
        try:
            for folder in (parent, parent / name):
                folder.mkdir(exist_ok=True)
                for file in _INHERITED:
                    if (folder / file).exists() and not (folder / file).read_text().strip():
                        (folder / file).write_text((folder.parent / file).read_text())
            break
        except FileNotFoundError:
            if not tries_left:
                raise
    return parent / name
