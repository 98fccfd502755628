"""Reads one whole GPU.

Facts without which a GPU cannot be named or served raise; the others are None when unsupported.
"""

from __future__ import annotations

from typing import Any, Protocol

from dra_driver.hardware.model import Gpu
from dra_driver.hardware.nvml import names
from dra_driver.hardware.nvml.binding import call, query
from dra_driver.hardware.nvml.mig import ProfileTables, read_mig


class PciTopology(Protocol):
    """Where a PCI device sits in the node. :class:`dra_driver.hardware.sysfs.Sysfs` is one."""

    def pcie_root(self, bus_id: str) -> str | None: ...

    def numa_node(self, bus_id: str) -> int | None: ...


def read_gpu(index: int, handle: Any, topology: PciTopology, tables: ProfileTables) -> Gpu:
    """The GPU behind an NVML device handle. NvmlCallError names the query that failed."""
    device = f"GPU {index}"
    uuid = str(call("nvmlDeviceGetUUID", handle, device=device))
    device = f"GPU {index} ({uuid})"
    pci = call("nvmlDeviceGetPciInfo", handle, device=device)
    bus_id = names.pci_bus_id(pci.busId)
    major, minor = call("nvmlDeviceGetCudaComputeCapability", handle, device=device)
    # Unified-memory GPUs answer "not supported": they have no memory of their own to count.
    memory = query("nvmlDeviceGetMemoryInfo", handle, device=device)
    return Gpu(
        index=index,
        minor=int(call("nvmlDeviceGetMinorNumber", handle, device=device)),
        uuid=uuid,
        product_name=str(call("nvmlDeviceGetName", handle, device=device)),
        brand=names.brand(query("nvmlDeviceGetBrand", handle, device=device)),
        architecture=names.architecture(query("nvmlDeviceGetArchitecture", handle, device=device)),
        cuda_compute_capability=f"{major}.{minor}",
        pci_bus_id=bus_id,
        memory_bytes=int(memory.total) if memory is not None and memory.total else None,
        addressing_mode=names.addressing_mode(query("nvmlDeviceGetAddressingMode", handle, device=device)),
        pcie_root=topology.pcie_root(bus_id),
        numa_node=topology.numa_node(bus_id),
        pci_device_id=int(pci.pciDeviceId) or None,
        mig=read_mig(handle, device, uuid, tables),
    )
