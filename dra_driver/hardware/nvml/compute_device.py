"""What CUDA programs use, by its UUID: a whole GPU, or a MIG device. As much of it as sharing needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from dra_driver.hardware.nvml.binding import call, query
from dra_driver.hardware.nvml.codes import GONE, Return
from dra_driver.hardware.nvml.errors import NvmlCallError

_OLDEST_WITH_MIG = (8, 0)  # Ampere


@dataclass(frozen=True, slots=True)
class ComputeDevice:
    """``memory_mib``: None on unified-memory GPUs, where NVML gives no total."""

    uuid: str
    is_mig: bool
    memory_mib: int | None
    compute_capability: tuple[int, int]


def read_compute_device(uuid: str) -> ComputeDevice | None:
    """As it is now; None when there is none (any more). Raises HardwareError."""
    try:
        handle = call("nvmlDeviceGetHandleByUUID", uuid, device=uuid)
        memory = query("nvmlDeviceGetMemoryInfo", handle, device=uuid)
        is_mig = bool(query("nvmlDeviceIsMigDeviceHandle", handle, device=uuid))
        asked = query if is_mig else call  # of a MIG device it may not be known
        major, minor = asked("nvmlDeviceGetCudaComputeCapability", handle, device=uuid) or _OLDEST_WITH_MIG
        return ComputeDevice(
            uuid=uuid,
            is_mig=is_mig,
            memory_mib=int(memory.total) >> 20 if memory is not None and memory.total else None,
            compute_capability=(int(major), int(minor)),
        )
    except NvmlCallError as error:
        # A UUID that is none is an invalid argument.
        if error.code in GONE or error.code in (Return.NOT_FOUND, Return.INVALID_ARGUMENT):
            return None
        raise
