"""Facts about a GPU's board that the driver has no use for and that a machine description keeps (``capture``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dra_driver.hardware.nvml.binding import call, query

_SM_CLOCK, _MEMORY_CLOCK = 1, 2  # nvmlClockType_t


@dataclass(frozen=True, slots=True)
class Board:
    """PCI ids are device << 16 | vendor, as nvmlPciInfo_t has them; None is what NVML does not give."""

    pci_device_id: int
    pci_subsystem_id: int | None
    power_limit_milliwatts: int | None
    max_sm_mhz: int | None
    max_memory_mhz: int | None


def read_board(handle: Any, device: str) -> Board:
    """NvmlCallError names the query that failed."""
    pci = call("nvmlDeviceGetPciInfo", handle, device=device)
    limit = query("nvmlDeviceGetPowerManagementLimit", handle, device=device)
    return Board(
        pci_device_id=int(pci.pciDeviceId),
        pci_subsystem_id=int(pci.pciSubSystemId) or None,
        power_limit_milliwatts=int(limit) if limit else None,
        max_sm_mhz=query("nvmlDeviceGetMaxClockInfo", handle, _SM_CLOCK, device=device),
        max_memory_mhz=query("nvmlDeviceGetMaxClockInfo", handle, _MEMORY_CLOCK, device=device),
    )
