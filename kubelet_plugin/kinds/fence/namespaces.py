"""A share's own MPS namespace, with limits that its MPS server holds (MPS protocol 3).

The share's MPS group is there before it (``kinds.mps``). A container gets the namespace's folder alone, and read-only:
what lies above it leads to everybody's limits. The variables say what the namespace says, so that none of a pod's own
can name a GPU that it does not see, which would drop the limit of memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from dra_driver.cdi.spec import ContainerEdits, Mount
from dra_driver.mps.group import GroupStatus, MpsShare, folders_of
from kubelet_plugin.kinds.fence.step import FenceShare
from kubelet_plugin.kinds.fence.tools import FenceTool, limit_variables
from kubelet_plugin.kinds.fractions import PIPE_ENV, PIPE_IN_CONTAINER, fractions_group

_MIB = 1024**2
_MOUNT_OPTIONS = ("ro", "nosuid", "nodev", "bind")


class Shares(Protocol):
    """``dra_driver.mps.client.SupervisorClient``. Calls have an end and raise ``HardwareError``."""

    def put_share(self, group_id: str, share: MpsShare) -> GroupStatus:
        """Returns when the limits were read back, and the server has the group's devices."""
        ...

    def remove_share(self, group_id: str, name: str) -> None:
        """A name or a group that nobody knows is success."""
        ...

    def groups(self) -> tuple[GroupStatus, ...]: ...


class NamespaceLimits(FenceTool):
    def __init__(self, supervisor: Shares, plugin_folder: Path) -> None:
        self._supervisor = supervisor
        self._plugin_folder = plugin_folder

    def up(self, fence: FenceShare) -> bool:
        group, share = fractions_group(fence.gpu_uuid, fence.device), share_of(fence)
        return any(
            each.share == share and not each.message
            for status in self._supervisor.groups()
            if status.group.id == group
            for each in status.shares
        )

    def put_up(self, fence: FenceShare) -> None:
        self._supervisor.put_share(fractions_group(fence.gpu_uuid, fence.device), share_of(fence))

    def take_down(self, fence: FenceShare) -> None:
        group = fractions_group(fence.gpu_uuid, fence.device)
        if folders_of(self._plugin_folder, group).root.exists():  # or there is nothing, nor need be a supervisor
            self._supervisor.remove_share(group, share_name(fence.share_id))

    def edits(self, fence: FenceShare) -> ContainerEdits:
        folders = folders_of(self._plugin_folder, fractions_group(fence.gpu_uuid, fence.device))
        own = Mount(str(folders.share(share_name(fence.share_id))), PIPE_IN_CONTAINER, _MOUNT_OPTIONS)
        return ContainerEdits(env=(PIPE_ENV, *limit_variables(fence)), mounts=(own,))


def share_of(fence: FenceShare) -> MpsShare:
    return MpsShare(
        name=share_name(fence.share_id),
        pinned_memory_mib={fence.uuid: fence.memory_limit // _MIB},
        active_thread_percentage=fence.compute or None,
        low_priority=fence.low_priority,
    )


def share_name(share_id: str) -> str:
    """Lower case letters, digits and underscores (MPS v3 Interface); a share id is a UUID."""
    return f"s{share_id.lower().replace('-', '_')}"
