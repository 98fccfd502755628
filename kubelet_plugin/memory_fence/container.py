"""Which cgroup a request is about: from the OCI state that a runtime hands to hooks, and the host's /proc.

The state (OCI runtime-spec, runtime.md) has the container's id and the process that becomes its first. Limits belong on
the container's own cgroup, the leaf: CUDA reports them there as the GPU's memory, and one above would be shared.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from dra_driver.errors import ClaimError, HardwareError, StateError
from dra_driver.hardware.cgroups import CgroupHierarchy, inode

_STARTED = 19  # of the fields of /proc/PID/stat after the name: field 22


class ContainerGone(ClaimError):
    """The container's process has ended, or another process has its number."""

    reason = "ContainerGone"


@dataclass(frozen=True, slots=True)
class Container:
    """As the runtime names it."""

    id: str
    pid: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container's process is. ``started`` tells the process from a later one of its number."""

    cgroup: Path
    inode: int
    started: str


def parse_state(text: str) -> Container:
    """Raises StateError for what is no OCI state of a container that is being made."""
    try:
        state = json.loads(text)
        identifier, pid = state["id"], state["pid"]
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"the runtime's state is no OCI state with id and pid: {error}") from error
    if not isinstance(identifier, str) or not identifier or not isinstance(pid, int) or pid <= 0:
        raise StateError(f"the runtime's state names no process: id {identifier!r}, pid {pid!r}")
    return Container(identifier, pid)


def find(container: Container, hierarchy: CgroupHierarchy, proc: Path) -> Place:
    """Where ``container`` is now. ``proc``: the host's. Raises ContainerGone, HardwareError.

    The cgroup's name has the container's id with every runtime (``cri-containerd-<id>.scope``, ``crio-<id>.scope``,
    ``<id>``); one that has not is not the container's own, and would be others' fence too.
    """
    folder = proc / str(container.pid)
    try:
        # A program may have any bytes as its name.
        stat, text = (folder / "stat").read_text(errors="replace"), (folder / "cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ContainerGone(
            f"process {container.pid} of container {container.id} is not there",
            hint=f"it has ended, or {proc} is not the host's /proc",
        ) from error
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ContainerGone(f"process {container.pid} of container {container.id} has ended")
    cgroup = hierarchy.of_process(text)
    if not any(container.id in part for part in cgroup.relative_to(hierarchy.root).parts):
        raise HardwareError(
            f"process {container.pid} is in {cgroup}, which is not a cgroup of container {container.id} alone",
            hint="the runtime must give each container a cgroup of its own, named after it",
        )
    number = inode(cgroup)
    if number is None:
        raise ContainerGone(
            f"the cgroup {cgroup} of container {container.id} is not there",
            hint=f"it has ended, or {hierarchy.root} is not the host's",
        )
    return Place(cgroup, number, fields[_STARTED])
