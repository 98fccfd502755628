"""The compute mode of a GPU: which processes may use it at once. Read and set through NVML.

NVML and not ``nvidia-smi -c``: it is a call of microseconds in a library that is loaded anyway, and it tells the mode.
The mode does not outlive the driver: a reboot, or a reset of the GPU, makes it DEFAULT.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from dra_driver.hardware.nvml.binding import call
from dra_driver.hardware.nvml.codes import GONE, Return
from dra_driver.hardware.nvml.errors import NvmlCallError


class ComputeMode(IntEnum):
    """nvmlComputeMode_t."""

    DEFAULT = 0
    EXCLUSIVE_THREAD = 1
    PROHIBITED = 2
    EXCLUSIVE_PROCESS = 3


def is_there(gpu_uuid: str) -> bool:
    """Whether the GPU can be asked at all; False when it is lost or was taken out. Raises HardwareError."""
    try:
        call("nvmlDeviceGetComputeMode", _handle(gpu_uuid), device=gpu_uuid)
    except NvmlCallError as error:
        if error.code in GONE or error.code == Return.NOT_FOUND:
            return False
        raise
    return True


def compute_mode(gpu_uuid: str) -> ComputeMode:
    """As it is now. Raises HardwareError."""
    return ComputeMode(int(call("nvmlDeviceGetComputeMode", _handle(gpu_uuid), device=gpu_uuid)))


def set_compute_mode(gpu_uuid: str, mode: ComputeMode) -> None:
    """Needs root. Raises HardwareError."""
    call("nvmlDeviceSetComputeMode", _handle(gpu_uuid), int(mode), device=gpu_uuid)


def _handle(gpu_uuid: str) -> Any:
    return call("nvmlDeviceGetHandleByUUID", gpu_uuid, device=gpu_uuid)
