"""A sharing group: what shares one MPS control daemon, with its settings and its folders. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

RECORD: Final = "group.json"
"""In a group's folder: the supervisor's record, which is there before anything else of the group and goes last."""


class GroupState(StrEnum):
    """How a group is; ``api/mps/supervisor_v1.proto`` says what each one means."""

    STARTING = "Starting"
    READY = "Ready"
    WEDGED = "Wedged"
    DEAD = "Dead"
    STOPPING = "Stopping"


@dataclass(frozen=True, slots=True)
class MpsGroup:
    """``devices``: UUIDs of GPUs or MIG devices, sorted. ``exclusive_gpus``: the whole GPUs among them, whose compute
    mode becomes EXCLUSIVE_PROCESS. ``pinned_memory_mib`` by UUID; a device without an entry has no limit."""

    id: str
    devices: tuple[str, ...]
    exclusive_gpus: tuple[str, ...] = ()
    active_thread_percentage: int | None = None
    pinned_memory_mib: Mapping[str, int] = field(default_factory=dict, hash=False)
    multi_user: bool = False


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """``message`` says why, for people; empty while ready. ``pid`` of the daemon, on the host; 0 for none."""

    group: MpsGroup
    state: GroupState
    message: str = ""
    pid: int = 0
    clients: int = 0


@dataclass(frozen=True, slots=True)
class GroupFolders:
    """Where a group's files are: the layout of NVIDIA's driver (its cmd/gpu-kubelet-plugin/sharing.go), so that what
    containers see is the same."""

    root: Path

    @property
    def pipe(self) -> Path:
        return self.root / "pipe"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def shm(self) -> Path:
        """A tmpfs while the group is there: the daemon's and the clients' ``/dev/shm``."""
        return self.root / "shm"


def groups_folder(plugin_folder: Path) -> Path:
    """Below the plugin's own folder, ``<plugins directory>/<driver name>``."""
    return plugin_folder / "mps"


def folders_of(plugin_folder: Path, group_id: str) -> GroupFolders:
    return GroupFolders(groups_folder(plugin_folder) / group_id)


def socket_of(plugin_folder: Path) -> Path:
    """The supervisor's socket."""
    return groups_folder(plugin_folder) / "supervisor.sock"
