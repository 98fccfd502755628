"""The GPUs as the supervisor needs them: what a device of a group is, and the compute mode of whole GPUs.

Devices are asked for one by one: a reading of the whole machine takes seconds on some, and every start would wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dra_driver.errors import HardwareError, HardwareUnavailable
from dra_driver.hardware.nvml import VersionMismatch
from dra_driver.hardware.nvml.compute_device import ComputeDevice, read_compute_device
from dra_driver.hardware.nvml.compute_mode import ComputeMode, compute_mode, is_there, set_compute_mode


class Gpus(Protocol):
    """Every method raises HardwareError."""

    def device(self, uuid: str) -> ComputeDevice | None:
        """What is there under a UUID; None for nothing."""
        ...

    def make_exclusive(self, gpu_uuid: str) -> None:
        """Compute mode EXCLUSIVE_PROCESS: besides MPS servers, nobody may use the GPU."""
        ...

    def make_default(self, gpu_uuid: str) -> None:
        """Compute mode DEFAULT; nothing for a GPU that is gone."""
        ...


class Startable(Protocol):
    """``kubelet_plugin.node.hardware.build_hardware`` gives one."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


class NodeGpus:
    """The real :class:`Gpus`. NVML is started when it is first needed: the driver may come after us.

    ``module_version``: the kernel module's, None while none is loaded.
    """

    def __init__(self, hardware: Startable, module_version: Callable[[], str | None]) -> None:
        self._hardware = hardware
        self._module_version = module_version

    def stop(self) -> None:
        self._hardware.stop()

    def problem(self) -> str | None:
        """Readiness: why GPUs cannot be asked."""
        try:
            self._hardware.start()
        except HardwareError as error:
            return str(error)
        return None

    def device(self, uuid: str) -> ComputeDevice | None:
        self._hardware.start()
        return read_compute_device(uuid)

    def make_exclusive(self, gpu_uuid: str) -> None:
        self._hardware.start()
        _set(gpu_uuid, ComputeMode.EXCLUSIVE_PROCESS)

    def make_default(self, gpu_uuid: str) -> None:
        try:
            self._hardware.start()
            if is_there(gpu_uuid):
                _set(gpu_uuid, ComputeMode.DEFAULT)
        except VersionMismatch:
            return  # another module was loaded since, and with it every mode is DEFAULT
        except HardwareUnavailable:
            if self._module_version() is not None:
                raise
            # No module is loaded, so no GPU has a mode: a driver may be taken away while pods end.


def _set(gpu_uuid: str, mode: ComputeMode) -> None:
    if compute_mode(gpu_uuid) is not mode:
        set_compute_mode(gpu_uuid, mode)
