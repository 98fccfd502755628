"""How much memory of a device is free right now, and whether any process computes on it, through NVML."""

from __future__ import annotations

from dra_driver.hardware.nvml.binding import call


class DeviceMemory:
    """Of the GPUs and MIG devices of this process's NVML, which must be initialised. Thread-safe, keeps nothing.

    Methods take the device's UUID and raise ``HardwareError``.
    """

    def free(self, uuid: str) -> int:
        """Bytes that processes could still have (nvmlDeviceGetMemoryInfo)."""
        return int(call("nvmlDeviceGetMemoryInfo", _handle(uuid), device=uuid).free)

    def is_idle(self, uuid: str) -> bool:
        """Whether no process has a CUDA context on it, MPS servers included (nvmlDeviceGetComputeRunningProcesses)."""
        return not call("nvmlDeviceGetComputeRunningProcesses", _handle(uuid), device=uuid)


def _handle(uuid: str) -> object:
    handle: object = call("nvmlDeviceGetHandleByUUID", uuid, device=uuid)
    return handle
