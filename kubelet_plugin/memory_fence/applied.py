"""What is done to the limits of one cgroup on one GPU, with that GPU's lock held.

Several shares may be in one container: what its cgroup may have of a GPU is the sum of them.

A container's cgroup is usually gone before its claim is unprepared, and with the driver's dmem backend its soft limit
then stays reserved in the cgroups above (NVIDIA, MPS v3 Memory Partitioning, Ancestor reservation propagation). It is
taken away again there: a cgroup's soft limit is the sum of those below it, so what is more than that, up to what was
ours, is lowered through NVML, and NVML lowers it in the cgroups further above too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dra_driver.errors import HardwareError
from dra_driver.hardware.cgroups import CgroupHierarchy, inode
from dra_driver.hardware.nvml.memory_limits import MemoryLimits
from kubelet_plugin.memory_fence.records import Fenced, Records

logger = logging.getLogger(__name__)


class GpuLimits(Protocol):
    """``dra_driver.hardware.nvml.memory_limits.GpuMemoryLimits`` is one."""

    def set(self, gpu_uuid: str, cgroup: Path, soft: int, hard: int) -> None: ...
    def get(self, gpu_uuid: str, cgroup: Path) -> MemoryLimits | None: ...
    def clear(self, gpu_uuid: str, cgroup: Path) -> None: ...
    def may_have_any(self, gpu_uuid: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Node:
    """What of the node is needed here. ``proc``: the host's /proc, as this process sees it."""

    limits: GpuLimits
    hierarchy: CgroupHierarchy
    boot_id: Callable[[], str]
    proc: Path = Path("/proc")


class Applied:
    """Keeps nothing. Methods raise HardwareError and OSError."""

    def __init__(self, node: Node, records: Records) -> None:
        self._node = node
        self._records = records

    def wanted(self, fenced: Fenced, *, without: Fenced | None = None) -> tuple[int, int]:
        """The soft and hard limit of all shares in the cgroup, on that GPU; (0, 0) when there are none."""
        boot_id = self._node.boot_id()
        there = [
            each
            for record in self._records.all()
            if record.boot_id == boot_id
            for each in record.fenced
            if each.place == fenced.place
        ]
        if without in there:
            there.remove(without)
        return sum(each.soft for each in there), sum(each.hard for each in there)

    def apply(self, fenced: Fenced) -> None:
        """Set what all shares have, ``fenced`` too, which must be on record."""
        soft, hard = self.wanted(fenced)
        self._node.limits.set(fenced.gpu_uuid, fenced.cgroup, soft, hard)

    def end(self, fenced: Fenced) -> None:
        """The cgroup has what its other shares have, or no limit. If it is gone, nothing above is reserved for it."""
        limits = self._node.limits
        if not limits.may_have_any(fenced.gpu_uuid):
            return
        if inode(fenced.cgroup) == fenced.inode:
            try:
                soft, hard = self.wanted(fenced, without=fenced)
                if hard:
                    limits.set(fenced.gpu_uuid, fenced.cgroup, soft, hard)
                else:
                    limits.clear(fenced.gpu_uuid, fenced.cgroup)
                return
            except HardwareError:
                if inode(fenced.cgroup) == fenced.inode:
                    raise
                # It was removed at this very moment.
        if fenced.soft:
            self._release_above(fenced)

    def _release_above(self, gone: Fenced) -> None:
        hierarchy, limits = self._node.hierarchy, self._node.limits
        above = next((each for each in hierarchy.ancestors(gone.cgroup) if each.is_dir()), None)
        if above is None or not hierarchy.reserves_above(above):
            return
        found = limits.get(gone.gpu_uuid, above)
        if found is None or not found.soft:
            return
        left = max(self._reserved_below(above, gone.gpu_uuid), found.soft - gone.soft)
        if left < found.soft:
            limits.set(gone.gpu_uuid, above, left, found.hard)
            logger.info(
                "%s was removed while %d bytes of %s were reserved for it; %s, which had %d, has %d now",
                *(gone.cgroup, gone.soft, gone.gpu_uuid, above, found.soft, left),
            )

    def _reserved_below(self, cgroup: Path, gpu_uuid: str) -> int:
        children = [each for each in cgroup.iterdir() if each.is_dir() and self._node.hierarchy.reserves_above(each)]
        found = (self._node.limits.get(gpu_uuid, each) for each in children)
        return sum(each.soft for each in found if each is not None)
