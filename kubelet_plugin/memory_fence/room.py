"""The parts of this room put together, for whoever starts and stops it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dra_driver.hardware.cgroups import CgroupHierarchy
from dra_driver.hardware.nvml.memory_limits import GpuMemoryLimits
from kubelet_plugin.memory_fence import hook
from kubelet_plugin.memory_fence.applied import Node
from kubelet_plugin.memory_fence.edits import OwnHook
from kubelet_plugin.memory_fence.keeper import Fences, Keeper
from kubelet_plugin.memory_fence.server import FenceServer
from kubelet_plugin.prepare.locks import NamedLocks

FOLDER: Final = "memory-fence"
"""Of this room, in the plugin's own folder (``<kubelet's plugins>/<driver name>``)."""


@dataclass(frozen=True, slots=True)
class Room:
    """``limits`` says why a GPU's memory cannot be limited; ``hook`` is for ``edits_for``."""

    server: FenceServer
    keeper: Keeper
    limits: GpuMemoryLimits
    hook: OwnHook
    locks: NamedLocks

    def stop(self) -> None:
        """What waits for a lock is refused; then nothing is answered any more."""
        self.locks.stop()
        self.server.stop()


def build(
    plugin_folder: Path,
    fences: Fences,
    *,
    hierarchy: CgroupHierarchy,
    boot_id: Callable[[], str],
    proc: Path,
) -> Room:
    """Nothing is started or made, except the folder, in which the locks are. Raises OSError.

    ``plugin_folder``: the same on the host and here, as the kubelet wants it. ``proc``: the host's /proc, as this
    process sees it; the process must be in the host's cgroup namespace. NVML must be initialised before the start.
    """
    folder = plugin_folder / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    limits = GpuMemoryLimits(hierarchy)
    locks = NamedLocks(folder / "locks")
    keeper = Keeper(folder / "records", Node(limits, hierarchy, boot_id, proc), fences, locks)
    return Room(FenceServer(folder, keeper), keeper, limits, OwnHook(folder / hook.FILE), locks)
