"""A sharing group: what shares one MPS control daemon, with its settings and its folders. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

RECORD: Final = "group.json"
"""In a group's folder: the supervisor's record, which is there before anything else of the group and goes last."""


LEGACY: Final = 2
"""The protocol of Legacy MPS: one default for all clients of the daemon."""
NAMED: Final = 3
"""The protocol of "MPS v3": named servers, with namespaces that have limits of their own (MPS v3 Interface)."""
SERVER: Final = "gpus"
"""The one server of a group of protocol 3. Short, since its name is part of the paths of sockets."""


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
    mode becomes EXCLUSIVE_PROCESS. ``pinned_memory_mib`` by UUID; a device without an entry has no limit.

    ``serve``: its server is there from the start, and not with the first client, as it always is with NAMED.

    With ``protocol`` NAMED the limits are those of its shares, and it has none itself. EXCLUSIVE_PROCESS is as useful
    there: NVIDIA's Common Tasks set it for both protocols, and without it a client whose pipe directory leads nowhere
    has the whole GPU, silently.
    """

    id: str
    devices: tuple[str, ...]
    exclusive_gpus: tuple[str, ...] = ()
    active_thread_percentage: int | None = None
    pinned_memory_mib: Mapping[str, int] = field(default_factory=dict, hash=False)
    multi_user: bool = False
    protocol: int = LEGACY
    serve: bool = False


@dataclass(frozen=True, slots=True)
class MpsShare:
    """A namespace of a group of protocol 3, with what a client that joins through it gets (MPS v3 Namespaces).

    A limit of memory is one value for every GPU that the client opens, so ``pinned_memory_mib``, by UUID, has one size
    (``--pinned-memory-limit`` of MPS v3 Interface); without an entry there is none. Not what it may look like: each
    process has the limit for itself, and a process that names a GPU which it does not see in
    CUDA_MPS_PINNED_DEVICE_MEM_LIMIT has none (NVIDIA Dynamo, "Per-GPU Compute and Memory Limits with MPS"). Neither the
    percentage nor another share can be had that way.
    """

    name: str
    pinned_memory_mib: Mapping[str, int] = field(default_factory=dict, hash=False)
    active_thread_percentage: int | None = None
    low_priority: bool = False


@dataclass(frozen=True, slots=True)
class ShareStatus:
    """``message`` says what is wrong with it, for people; empty while its limits are in force."""

    share: MpsShare
    message: str = ""


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """``message`` says why, for people; empty while ready. ``pid`` of the daemon, on the host; 0 for none."""

    group: MpsGroup
    state: GroupState
    message: str = ""
    pid: int = 0
    clients: int = 0
    shares: tuple[ShareStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupFolders:
    """Where a group's files are: the layout of NVIDIA's driver (its cmd/gpu-kubelet-plugin/sharing.go), so that what
    containers see is the same."""

    root: Path

    @property
    def pipe(self) -> Path:
        return self.root / "pipe"

    @property
    def server(self) -> Path:
        """Of a group of protocol 3: its server's folder, which leads to the namespace of those who have none."""
        return self.pipe / SERVER

    def share(self, name: str) -> Path:
        """What a container gets of a group of protocol 3, and no more: it leads to the share's namespace alone. It may
        be mounted read-only, since a client only connects to the socket in it (MPS v3 Namespaces, Namespace Routing).
        ``pipe`` must not be there beside it: its ``control`` takes commands of root, a container's root too.

        The client's CUDA_MPS_PIPE_DIRECTORY is where it is mounted. The daemon makes the folder: whoever has mounted
        one of a daemon that has ended must start anew.
        """
        return self.server / name

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
