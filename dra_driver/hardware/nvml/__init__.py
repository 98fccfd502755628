"""Real hardware through NVML: reads the node's GPUs into a :class:`~dra_driver.hardware.model.Machine`.

``binding`` is the one module of the project that imports pynvml; ``library`` finds the driver's library under a driver
root, ``gpu`` and ``mig`` read one GPU, ``reader`` puts it together and owns NVML's life; ``mig_control`` changes MIG,
``device_memory`` asks what is free, ``events`` waits for what GPUs report,
``replaced`` tells when the driver is another than the one that was loaded.
"""

from dra_driver.hardware.nvml.board import Board
from dra_driver.hardware.nvml.device_memory import DeviceMemory
from dra_driver.hardware.nvml.errors import (
    DriverReplaced,
    GpuBusy,
    InstanceInUse,
    MigModePending,
    NvmlCallError,
    PlacementOccupied,
    VersionMismatch,
)
from dra_driver.hardware.nvml.events import GpuEvent, GpuEvents
from dra_driver.hardware.nvml.gpu import PciTopology
from dra_driver.hardware.nvml.library import loaded_library
from dra_driver.hardware.nvml.mig_control import MigControl
from dra_driver.hardware.nvml.reader import GpuProblem, NvmlHardware, Reading

__all__ = [
    "Board",
    "DeviceMemory",
    "DriverReplaced",
    "GpuBusy",
    "GpuEvent",
    "GpuEvents",
    "GpuProblem",
    "InstanceInUse",
    "MigControl",
    "MigModePending",
    "NvmlCallError",
    "NvmlHardware",
    "PciTopology",
    "PlacementOccupied",
    "Reading",
    "VersionMismatch",
    "loaded_library",
]
