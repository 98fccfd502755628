"""Simulated functions that limit a GPU's memory for a cgroup, of driver 615 and later; and which cgroups there are.

Where NVIDIA's pages say what is refused, the code is a guess all the same, since they name none. Two refusals are this
simulation's own, so that mistakes show: a limit above the GPU's memory, and soft limits that are together more than it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dra_driver.errors import HardwareError
from dra_driver.hardware.cgroups import CgroupHierarchy
from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import cgroup_limits
from dra_driver.simulation.hardware.arguments import Refused, target
from dra_driver.simulation.hardware.calls import DeviceCall, Function, FunctionTable
from dra_driver.simulation.hardware.cgroup_limits import UNLIMITED, Limit
from dra_driver.simulation.hardware.handles import Kind
from dra_driver.simulation.hardware.state import CgroupsState, GpuState, MemoryLimitState, SimulatedState
from dra_driver.simulation.hardware.state_file import StateFile

SINCE = 615


def use_hierarchy(state_file: Path, hierarchy: CgroupHierarchy) -> None:
    """From now on these are the node's cgroups: for a machine whose kernel has no cgroup v2, or a test's own tree.

    HardwareUnavailable when the state cannot be read, OSError when it cannot be written.
    """
    cgroups = CgroupsState(root=str(hierarchy.root), stands_in=hierarchy.stands_in)
    file = StateFile(state_file)
    file.read()  # says that there is no node here, where an update would leave a lock
    file.update(lambda state: state.model_copy(update={"cgroups": cgroups}))


def cgroup_of(state: SimulatedState, pid: int) -> str | None:
    """The cgroup of a process of this machine; None where it cannot be told."""
    try:
        return str(state.hierarchy.of_process(Path(f"/proc/{pid}/cgroup").read_text()))
    except (OSError, HardwareError):
        return None


def own_view(call: DeviceCall) -> tuple[int, int] | None:
    """What the calling process's cgroup may have of the GPU's memory, and what it has; None: nothing limits it."""
    limits = _limits(call.gpu)
    if not limits or call.target.kind is not Kind.GPU:
        return None
    cgroup = cgroup_of(call.state, os.getpid())
    most = cgroup_limits.reported(limits, cgroup)
    return None if most is None or cgroup is None else (most, cgroup_limits.used(_uses(call.gpu), cgroup))


def _set(call: DeviceCall, limits: Any) -> None:
    structure = target(limits)
    call.require_privileges()
    cgroup = _cgroup(call, structure.nameSpace)
    hierarchy, memory = call.state.hierarchy, _accounted_memory(call)
    if cgroup == hierarchy.root:
        raise Refused(Return.NOT_SUPPORTED)
    soft, hard = int(structure.softLimit), int(structure.hardLimit)
    if soft > hard or (hard != UNLIMITED and hard > memory):
        raise Refused(Return.INVALID_ARGUMENT)

    def change(gpu: GpuState) -> GpuState:
        if hard < cgroup_limits.used(_uses(gpu), str(cgroup)):
            raise Refused(Return.IN_USE)
        after = cgroup_limits.changed(_limits(gpu), cgroup, hierarchy.ancestors(cgroup), soft=soft, hard=hard)
        if after is None:
            raise Refused(Return.NOT_FOUND)
        if cgroup_limits.reserved(after, hierarchy.root) > memory:
            raise Refused(Return.INSUFFICIENT_RESOURCES)
        kept = tuple(
            MemoryLimitState(cgroup=each.cgroup, inode=each.inode, soft=each.soft, hard=each.hard) for each in after
        )
        return gpu.model_copy(update={"memory_limits": kept})

    call.change_gpu(change)


def _get(call: DeviceCall, limits: Any) -> None:
    structure = target(limits)
    cgroup = _cgroup(call, structure.nameSpace)
    _accounted_memory(call)
    own = cgroup_limits.limit_of(cgroup_limits.living(_limits(call.gpu)), str(cgroup))
    structure.softLimit = own.soft if own else 0
    structure.hardLimit = own.hard if own else UNLIMITED
    structure.currentUsed = cgroup_limits.used(_uses(call.gpu), str(cgroup))


def _accounted_memory(call: DeviceCall) -> int:
    """The GPU's memory. "Not supported" for MIG, and for a GPU that shares the host's."""
    if call.target.kind is Kind.MIG_DEVICE or call.gpu.mig_enabled or call.product.memory_bytes is None:
        raise Refused(Return.NOT_SUPPORTED)
    return call.product.memory_bytes


def _cgroup(call: DeviceCall, name: Any) -> Path:
    hierarchy = call.state.hierarchy
    if hierarchy.problem() is not None:
        raise Refused(Return.NOT_SUPPORTED)
    if not isinstance(name, bytes | str) or not name:  # pynvml's structures show a char * as text
        raise Refused(Return.INVALID_ARGUMENT)
    path = Path(os.fsdecode(name))
    if not path.is_relative_to(hierarchy.root) or ".." in path.parts or not path.is_dir():
        raise Refused(Return.NOT_FOUND)
    return path


def _limits(gpu: GpuState) -> tuple[Limit, ...]:
    return tuple(Limit(each.cgroup, each.inode, each.soft, each.hard) for each in gpu.memory_limits)


def _uses(gpu: GpuState) -> tuple[cgroup_limits.Use, ...]:
    return tuple(client for client in gpu.clients if client.uuid == gpu.uuid)


FUNCTIONS: FunctionTable = {
    "nvmlDeviceSetMemoryLimits_v1": Function(_set, (Kind.GPU, Kind.MIG_DEVICE), since=SINCE),
    "nvmlDeviceGetMemoryLimits_v1": Function(_get, (Kind.GPU, Kind.MIG_DEVICE), since=SINCE),
}
