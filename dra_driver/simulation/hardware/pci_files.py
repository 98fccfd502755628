"""What sysfs shows of a GPU as a PCI device: the files that programs read which look at the bus themselves.

NVIDIA's go-nvlib, and with it GPU Feature Discovery and the container toolkit, reads all of these of each NVIDIA device
and gives up at the first that is missing (pkg/nvpci). The device has no capabilities, so it is nobody's virtual
function and no vGPU.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from dra_driver.simulation.hardware.description import GpuDescription, ProductDescription
from dra_driver.simulation.hardware.idle import bar1_bytes

_NVIDIA = "0x000010de"  # of a product whose device id is not known
_CLASS = 0x030200  # a 3D controller: no display is connected to it
_CONFIG_BYTES = 256  # of a device that is not PCI Express; GPU Feature Discovery wants at least these
_REGIONS = 13  # six BARs, the ROM, six of virtual functions
# Flags of regions, which are IORESOURCE_ of include/linux/ioport.h: memory, of 32 and of 64 bits.
_PLAIN, _PREFETCHABLE = 0x40200, 0x14220C


def pci_files(index: int, gpu: GpuDescription, product: ProductDescription) -> Mapping[str, str | bytes]:
    """Contents by name, all in the device's folder."""
    ids = int(product.pci_device_id or _NVIDIA, 16)
    vendor, device = ids & 0xFFFF, ids >> 16
    return {
        "numa_node": f"{-1 if gpu.numa_node is None else gpu.numa_node}\n",
        "vendor": f"{vendor:#06x}\n",
        "device": f"{device:#06x}\n",
        "class": f"{_CLASS:#08x}\n",
        "config": _configuration(vendor, device, int(product.pci_subsystem_id or "0", 16)),
        "resource": _regions(index, bar1_bytes(product)),
    }


def _configuration(vendor: int, device: int, subsystem: int) -> bytes:
    """The header of PCI Local Bus 3.0, 6.1: identity, class and subsystem, all else zero."""
    revision_and_class = _CLASS << 8
    start = struct.pack("<HHHHI", vendor, device, 0, 0, revision_and_class)
    return (start.ljust(0x2C, b"\0") + struct.pack("<I", subsystem)).ljust(_CONFIG_BYTES, b"\0")


def _regions(index: int, aperture: int) -> str:
    """A line each of first byte, last byte and flags (Documentation/PCI/sysfs-pci.rst): registers, the aperture of
    ``aperture`` bytes, and what the driver maps for itself. The addresses are nobody's."""
    first = 1 << 45 | index << 41
    regions = {0: (first, 1 << 24, _PLAIN), 3: (first + (1 << 25), 1 << 25, _PREFETCHABLE)}
    if aperture:
        regions[1] = (first + aperture, aperture, _PREFETCHABLE)
    lines = []
    for number in range(_REGIONS):
        start, size, flags = regions.get(number, (0, 1, 0))
        lines.append(f"0x{start:016x} 0x{start + size - 1:016x} 0x{flags:016x}\n")
    return "".join(lines)
