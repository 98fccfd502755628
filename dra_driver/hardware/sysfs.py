"""What sysfs and procfs of the node say about a GPU and about the boot, read under one injected host root.

Used by the NVML adapter through the ``PciTopology`` protocol. Every value may be missing on a real node (virtual
machines hide the topology, kernels say numa_node -1), so absence is None and not an error.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from dra_driver.errors import HardwareError
from dra_driver.hardware.rooted import resolve_inside

logger = logging.getLogger(__name__)

_PCI_ROOT = re.compile(r"pci[0-9a-f]{4}:[0-9a-f]{2}")


class Sysfs:
    """Reads under ``host_root`` ("/" on the node, a mounted copy of it in a container)."""

    def __init__(self, host_root: Path) -> None:
        self._root = host_root

    def pcie_root(self, bus_id: str) -> str | None:
        """PCIe root complex of ``0000:1a:00.0``, like ``pci0000:15``.

        It is the first folder below /sys/devices on the device's real path, which is also how Kubernetes'
        ``deviceattribute`` library finds it. None when the device is unknown or not below a PCI root.
        """
        folder = self._device_folder(bus_id)
        devices = self._root / "sys/devices"
        if folder is None or not folder.is_relative_to(devices):
            return None
        parts = folder.relative_to(devices).parts
        return parts[0] if parts and _PCI_ROOT.fullmatch(parts[0]) else None

    def numa_node(self, bus_id: str) -> int | None:
        """NUMA node of the device; None when the kernel does not know it (-1) or there is no such device."""
        folder = self._device_folder(bus_id)
        if folder is None:
            return None
        try:
            node = int((folder / "numa_node").read_text(encoding="ascii").strip())
        except (OSError, ValueError) as error:
            # A GPU is usable without it, so this must not hide the GPU.
            logger.warning("cannot read the NUMA node of PCI device %s: %s", bus_id, error)
            return None
        return node if node >= 0 else None

    def boot_id(self) -> str:
        """The kernel's random id of this boot. HardwareError when it cannot be read: nothing can replace it."""
        try:
            return resolve_inside(self._root, "/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError as error:
            raise HardwareError(
                f"cannot read the boot id: {error}", hint=f"is the host's /proc visible under {self._root}?"
            ) from error

    def _device_folder(self, bus_id: str) -> Path | None:
        """The device's folder under /sys/devices, links resolved inside the root; None when there is none."""
        try:
            folder = resolve_inside(self._root, f"/sys/bus/pci/devices/{bus_id}")
        except OSError as error:
            logger.warning("cannot find PCI device %s in sysfs: %s", bus_id, error)
            return None
        return folder if folder.is_dir() else None
