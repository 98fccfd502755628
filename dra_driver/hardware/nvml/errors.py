"""How NVML's errors become ours, decided once."""

from __future__ import annotations

from dra_driver.errors import HardwareError, HardwareUnavailable
from dra_driver.hardware.nvml.codes import GONE, Return, code_name

# Codes after which no call can work until a person or the node does something, and what that is.
_UNAVAILABLE = {
    Return.UNINITIALIZED: "call NvmlHardware.start() first",
    Return.DRIVER_NOT_LOADED: "wait for the driver's installation to end, or load its kernel module: modprobe nvidia",
    Return.LIBRARY_NOT_FOUND: "install the NVIDIA driver on this node, or point the driver root at it",
    Return.LIB_RM_VERSION_MISMATCH: (
        "driver library and kernel module differ in version: end the driver's update (reload the nvidia kernel "
        "modules, or reboot); a process that has the old library must start again"
    ),
}
_HINTS = {
    Return.NO_PERMISSION: "run as root, in a privileged container",
    Return.GPU_IS_LOST: "the GPU fell off the bus; reset the GPU or reboot the node",
    Return.RESET_REQUIRED: "reset the GPU (nvidia-smi --gpu-reset) or reboot the node",
    Return.IN_USE: "stop the processes that use the GPU",
}


class NvmlCallError(HardwareError):
    """One NVML call failed. ``function`` and ``code`` are NVML's, ``device`` says which GPU ("" for the whole node)."""

    def __init__(self, function: str, device: str, code: int) -> None:
        where = f" for {device}" if device else ""
        super().__init__(f"{function}{where} failed: {code_name(code)}", hint=_HINTS.get(_known(code), ""))
        self.function = function
        self.device = device
        self.code = code

    @property
    def gpu_is_gone(self) -> bool:
        return self.code in GONE


class VersionMismatch(HardwareUnavailable):
    """The library that this process has loaded and the kernel module are not of one driver."""


class DriverReplaced(HardwareUnavailable):
    """As :class:`VersionMismatch`, and the library that belongs to the module is there for a new process."""


class PlacementOccupied(HardwareError):
    """NVML has no room for an instance where it was to be made, whatever its lists say."""

    reason = "MigPlacementOccupied"


class InstanceInUse(HardwareError):
    """A GPU or compute instance is not destroyed: a process uses it, or it still has compute instances."""

    reason = "MigInstanceInUse"


class MigModePending(HardwareError):
    """MIG mode does not change before the GPU is reset."""

    reason = "MigModeNeedsReset"


class GpuBusy(HardwareError):
    """MIG mode does not change while a process or a MIG instance holds the GPU."""

    reason = "GpuBusy"


def call_failed(function: str, device: str, code: int) -> HardwareError:
    """The error to raise for a failed call: HardwareUnavailable when NVML as a whole cannot be used."""
    known = _known(code)
    if known in _UNAVAILABLE:
        kind = VersionMismatch if known is Return.LIB_RM_VERSION_MISMATCH else HardwareUnavailable
        return kind(f"{function} failed: {code_name(code)}", hint=_UNAVAILABLE[known])
    return NvmlCallError(function, device, code)


def _known(code: int) -> Return:
    try:
        return Return(code)
    except ValueError:
        return Return.UNKNOWN
