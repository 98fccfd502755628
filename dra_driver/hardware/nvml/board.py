"""Facts about a GPU's board that the driver has no use for and that a machine description keeps (``capture``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dra_driver.hardware.nvml.binding import call, query


@dataclass(frozen=True, slots=True)
class Board:
    """PCI ids are device << 16 | vendor, as nvmlPciInfo_t has them; None when NVML gives none."""

    pci_device_id: int
    pci_subsystem_id: int | None
    power_limit_milliwatts: int | None


def read_board(handle: Any, device: str) -> Board:
    """NvmlCallError names the query that failed."""
    pci = call("nvmlDeviceGetPciInfo", handle, device=device)
    limit = query("nvmlDeviceGetPowerManagementLimit", handle, device=device)
    return Board(int(pci.pciDeviceId), int(pci.pciSubSystemId) or None, int(limit) if limit else None)
