"""The machines on which NVIDIA's driver was recorded, as our hardware model sees them.

Written by hand from the profiles of the mock NVML that the recording used (8 GPUs each, no MIG, no addressing mode,
no sysfs data unless said), so the comparison starts from the hardware and not from the recorded answer.
"""

from __future__ import annotations

from dataclasses import replace

from dra_driver.hardware.model import Gpu, Machine

_GIB = 2**30


def _machine(template: Gpu, bus_ids: str, uuid: str, driver: str, cuda: int) -> Machine:
    gpus = tuple(
        replace(template, index=number, minor=number, uuid=f"{uuid}{number}", pci_bus_id=f"0000:{bus}:00.0")
        for number, bus in enumerate(bus_ids.split())
    )
    return Machine(driver_version=driver, cuda_driver_version=cuda, gpus=gpus)


def _template(product: str, architecture: str, capability: str, memory_gib: int) -> Gpu:
    return Gpu(
        index=0,
        minor=0,
        uuid="",
        product_name=product,
        brand="Nvidia",
        architecture=architecture,
        cuda_compute_capability=capability,
        pci_bus_id="",
        memory_bytes=memory_gib * _GIB,
    )


A100 = _machine(
    _template("NVIDIA A100-SXM4-40GB", "Ampere", "8.0", 40),
    "07 0f 47 4e 87 90 b7 bd",
    "GPU-12345678-1234-1234-1234-12345678000",
    "550.163.01",
    12040,
)
H100 = _machine(
    _template("NVIDIA H100 80GB HBM3", "Hopper", "9.0", 80),
    "1a 1b 4a 4b 8a 8b ca cb",
    "GPU-01000100-0000-0000-0000-00000000000",
    "550.163.01",
    12040,
)
GB200 = _machine(
    _template("NVIDIA GB200", "Blackwell", "10.0", 192),
    "0a 0b 4a 4b 8a 8b ca cb",
    "GPU-b200b200-0000-0000-0000-00000000000",
    "580.65.06",
    13000,
)
GB300 = _machine(
    _template("NVIDIA GB300 NVL", "Blackwell", "10.0", 288),
    "0a 0b 4a 4b 8a 8b ca cb",
    "GPU-b300b300-0000-0000-0000-00000000000",
    "570.124.06",
    12080,
)
# With sysfs: one PCI root, GPUs 0 to 3 on NUMA node 0 and 4 to 7 on node 1.
H100_WITH_SYSFS = replace(
    H100,
    gpus=tuple(replace(gpu, pcie_root="pci0000:00", numa_node=gpu.minor // 4) for gpu in H100.gpus),
)

RECORDINGS: dict[str, Machine] = {
    "slices-a100-nogates.json": A100,
    "slices-h100-nogates.json": H100,
    "slices-h100-sysfs-nogates.json": H100_WITH_SYSFS,
    "slices-gb200-nogates.json": GB200,
    "slices-gb300-nogates.json": GB300,
}
