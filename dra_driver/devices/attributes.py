"""Attributes of GPUs and MIG devices, and the capacity of a whole GPU: names, types and values of NVIDIA's driver.

Source: dra-driver-nvidia-gpu, cmd/gpu-kubelet-plugin/deviceinfo.go. Names without a domain are in the driver's domain.
Only what does not change while the node is up is published: every slice update wakes the pods that wait for devices.
"""

from __future__ import annotations

from collections.abc import Mapping

from dra_driver.devices.model import AttributeValue, Capacity, DeviceKind
from dra_driver.devices.policy import DevicePolicy
from dra_driver.devices.text import clip
from dra_driver.devices.versions import cuda_version_attribute, version_attribute
from dra_driver.hardware.model import Gpu, Machine
from dra_driver.quantity import Quantity

# Standard attributes, by which devices of different drivers can be aligned (k8s.io/dynamic-resource-allocation,
# deviceattribute; numaNode: KEP-6072).
PCI_BUS_ID = "resource.kubernetes.io/pciBusID"
PCIE_ROOT = "resource.kubernetes.io/pcieRoot"
NUMA_NODE = "resource.kubernetes.io/numaNode"


def gpu_attributes(gpu: Gpu, machine: Machine, policy: DevicePolicy) -> Mapping[str, AttributeValue]:
    """The attributes of one whole GPU. What the hardware does not tell is left out, as NVIDIA's driver does."""
    found = {"type": DeviceKind.GPU.value, "uuid": gpu.uuid, **_of_the_board(gpu, machine)}
    if policy.additional_attributes:
        found |= {"minor": gpu.minor, "migCapable": gpu.mig is not None}
    return _present(found)


def mig_attributes(
    gpu: Gpu, machine: Machine, policy: DevicePolicy, profile: str, uuid: str | None = None
) -> Mapping[str, AttributeValue]:
    """The attributes of a MIG device. ``profile`` as NVML names it; ``uuid`` None while the device does not exist."""
    found = {
        "type": DeviceKind.MIG.value,
        "uuid": uuid,
        "parentUUID": gpu.uuid,
        "profile": profile,
        **_of_the_board(gpu, machine),
    }
    if policy.additional_attributes:
        found["minor"] = gpu.minor
    return _present(found)


def gpu_capacity(gpu: Gpu) -> Mapping[str, Capacity]:
    """``memory`` in bytes; absent where NVML gives no total (unified memory)."""
    if gpu.memory_bytes is None:
        return {}
    return {"memory": Capacity(Quantity.binary(gpu.memory_bytes))}


def _of_the_board(gpu: Gpu, machine: Machine) -> dict[str, AttributeValue | None]:
    """What a whole GPU and its MIG devices have in common."""
    return {
        "productName": gpu.product_name,
        "brand": gpu.brand,
        "architecture": gpu.architecture,
        "cudaComputeCapability": version_attribute(gpu.cuda_compute_capability),
        "driverVersion": version_attribute(machine.driver_version),
        "cudaDriverVersion": cuda_version_attribute(machine.cuda_driver_version),
        "addressingMode": gpu.addressing_mode,
        PCI_BUS_ID: gpu.pci_bus_id,
        PCIE_ROOT: gpu.pcie_root,
        NUMA_NODE: gpu.numa_node,
    }


def _present(found: Mapping[str, AttributeValue | None]) -> Mapping[str, AttributeValue]:
    return {
        name: clip(value) if isinstance(value, str) else value for name, value in found.items() if value is not None
    }
