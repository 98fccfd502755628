"""Small machines for the tests of devices and slices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dra_driver.hardware.model import Gpu, Machine, MigState

GPU = Gpu(
    index=0,
    minor=0,
    uuid="GPU-00000000-0000-0000-0000-000000000000",
    product_name="NVIDIA H100 80GB HBM3",
    brand="Nvidia",
    architecture="Hopper",
    cuda_compute_capability="9.0",
    pci_bus_id="0000:1a:00.0",
    memory_bytes=80 * 2**30,
    addressing_mode="None",
    pcie_root="pci0000:15",
    numa_node=0,
    mig=MigState(enabled=False, pending=False),
)


def gpu(number: int, **changes: Any) -> Gpu:
    """GPU ``number`` of a node; its bus id rises with the number."""
    identity = {
        "index": number,
        "minor": number,
        "uuid": f"GPU-00000000-0000-0000-0000-{number:012x}",
        "pci_bus_id": f"0000:{number + 0x1A:02x}:00.0",
    }
    return replace(GPU, **{**identity, **changes})


def machine(*gpus: Gpu) -> Machine:
    return Machine(driver_version="580.105.08", cuda_driver_version=13000, gpus=gpus)
