"""Limits of a GPU's memory for the processes of one cgroup, through NVML: set, read, clear, and why it cannot be.

``soft`` bytes are guaranteed to the cgroup, an allocation beyond ``hard`` fails with out of memory, and CUDA reports
``hard`` as the GPU's memory when it is set on the very cgroup that the process is in (nvmlDeviceSetMemoryLimits_v1 and
nvmlDeviceGetMemoryLimits_v1, CUDA 13.4, driver 615; NVIDIA, MPS v3 Memory Partitioning). Setting needs root.

With the driver's dmem backend a soft limit is also added to every cgroup above. It is taken away there when it is
lowered through NVML, and stays there when the cgroup is removed before that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dra_driver.errors import HardwareError
from dra_driver.hardware.cgroups import CgroupHierarchy
from dra_driver.hardware.nvml.binding import array, call, query
from dra_driver.hardware.nvml.codes import Return
from dra_driver.hardware.nvml.errors import NvmlCallError

UNLIMITED: Final = 0xFFFFFFFFFFFFFFFF
"""NVML_DEVICE_MEMORY_LIMIT_MAX."""

_SET, _GET = "nvmlDeviceSetMemoryLimits_v1", "nvmlDeviceGetMemoryLimits_v1"
_NEWER = "update the NVIDIA driver to 615 or newer"
# The getter's words for a cgroup that nobody has limited. The kernel module's misc backend says "not supported" then
# (open-gpu-kernel-modules 615, memacct.c, memacctGetLimits), as it does where limits are off; only a set tells which.
_NONE_SET = frozenset({Return.NOT_FOUND, Return.NOT_SUPPORTED})

_WHY = {
    Return.FUNCTION_NOT_FOUND: ("this driver cannot limit memory by cgroup", _NEWER),
    Return.NOT_SUPPORTED: (
        "this driver does not account memory by cgroup for this GPU and cgroup",
        "it needs a GPU without MIG, a cgroup below the root, and no RmMemacctMode=0 among the module's options",
    ),
    Return.NOT_FOUND: (
        "there is no such cgroup, or it has no dmem controller",
        "the runtime must enable all controllers down to the container's cgroup, as runc and crun do",
    ),
    Return.NO_PERMISSION: ("setting memory limits needs root", "run the plugin privileged"),
}


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """In bytes. ``used`` is what the cgroup's processes have now."""

    soft: int
    hard: int
    used: int

    @property
    def limited(self) -> bool:
        return (self.soft, self.hard) != (0, UNLIMITED)


class LimitsRefused(NvmlCallError):
    """A call about a GPU and a cgroup failed; where the code has a meaning for limits, its text has that meaning."""

    def __init__(self, error: NvmlCallError, gpu_uuid: str, cgroup: Path) -> None:
        super().__init__(error.function, f"{gpu_uuid} and {cgroup}", error.code)
        meaning = next((each for code, each in _WHY.items() if code == error.code), None)
        if meaning is not None:
            self.message, self.hint = f"{self.message}: {meaning[0]}", meaning[1]


class GpuMemoryLimits:
    """Limits on the GPUs of this process's NVML, which must be initialised. Thread-safe, keeps nothing.

    Methods take a GPU's UUID and the full path of a cgroup, as this process sees it; they raise HardwareError.
    """

    def __init__(self, hierarchy: CgroupHierarchy) -> None:
        self._hierarchy = hierarchy

    @property
    def hierarchy_problem(self) -> str | None:
        """What of the cgroups keeps all GPUs from being limited, in words."""
        return self._hierarchy.problem()

    def why_not(self, gpu_uuid: str) -> str | None:
        """Why no memory of the GPU can be limited, in words; None when nothing speaks against it.

        It only reads. A driver whose accounting was turned off by an option is found out by a set, not here.
        """
        problem = self.hierarchy_problem
        if problem is not None:
            return problem
        handle = _handle(gpu_uuid)
        if bool(query("nvmlDeviceIsMigDeviceHandle", handle, device=gpu_uuid)):
            return f"{gpu_uuid} is a MIG device, whose memory is its own already"
        mode = query("nvmlDeviceGetMigMode", handle, device=gpu_uuid)
        if mode is not None and bool(mode[0]):
            return f"MIG mode of {gpu_uuid} is on, and memory is limited on GPUs without MIG only"
        try:
            _read(handle, gpu_uuid, self._hierarchy.root)
        except NvmlCallError as error:
            if error.code == Return.FUNCTION_NOT_FOUND:
                return f"{_WHY[Return.FUNCTION_NOT_FOUND][0]} ({_NEWER})"
            if error.code not in _NONE_SET:
                raise
        return None

    def set(self, gpu_uuid: str, cgroup: Path, soft: int, hard: int) -> None:
        """Set both limits and read them back; HardwareError also when the driver has made something else of them."""
        handle = _handle(gpu_uuid)
        limits = array("c_nvmlSetMemoryLimits_v1_t", 1)[0]
        limits.nameSpace, limits.softLimit, limits.hardLimit = bytes(cgroup), soft, hard
        try:
            call(_SET, handle, limits, device=gpu_uuid)
        except NvmlCallError as error:
            raise LimitsRefused(error, gpu_uuid, cgroup) from error
        found = self.get(gpu_uuid, cgroup)
        if found is None or (found.soft, found.hard) != (soft, hard):
            now = "none" if found is None else f"soft {found.soft}, hard {_text(found.hard)}"
            raise HardwareError(
                f"memory limits of {gpu_uuid} for {cgroup} were set to soft {soft}, hard {_text(hard)}, "
                f"and NVML reads {now}",
                hint="something else sets limits there, or the driver rounds them; nothing relies on them",
            )

    def get(self, gpu_uuid: str, cgroup: Path) -> MemoryLimits | None:
        """As they are now; None where NVML knows of none. They may be those of the nearest cgroup above."""
        try:
            return _read(_handle(gpu_uuid), gpu_uuid, cgroup)
        except NvmlCallError as error:
            if error.code in _NONE_SET:
                return None
            raise LimitsRefused(error, gpu_uuid, cgroup) from error

    def clear(self, gpu_uuid: str, cgroup: Path) -> None:
        """No limit, and nothing reserved above for it."""
        self.set(gpu_uuid, cgroup, 0, UNLIMITED)

    def may_have_any(self, gpu_uuid: str) -> bool:
        """False when there can be no limit on the GPU: it is gone, or the driver, an older one now, knows none."""
        try:
            _read(_handle(gpu_uuid), gpu_uuid, self._hierarchy.root)
        except NvmlCallError as error:
            missing = error.function != _GET and error.code == Return.NOT_FOUND
            return not (missing or error.gpu_is_gone or error.code == Return.FUNCTION_NOT_FOUND)
        return True


def _read(handle: Any, gpu_uuid: str, cgroup: Path) -> MemoryLimits:
    limits = array("c_nvmlGetMemoryLimits_v1_t", 1)[0]
    limits.nameSpace = bytes(cgroup)
    call(_GET, handle, limits, device=gpu_uuid)
    return MemoryLimits(int(limits.softLimit), int(limits.hardLimit), int(limits.currentUsed))


def _handle(gpu_uuid: str) -> Any:
    return call("nvmlDeviceGetHandleByUUID", gpu_uuid, device=gpu_uuid)


def _text(limit: int) -> str:
    return "none" if limit == UNLIMITED else str(limit)
