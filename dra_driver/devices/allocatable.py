"""Machine and policy in, allocatable devices out: what a node offers to the scheduler. Pure."""

from __future__ import annotations

from collections import Counter

from dra_driver.devices.attributes import gpu_attributes, gpu_capacity
from dra_driver.devices.model import AllocatableDevice, DeviceKind, DeviceSet
from dra_driver.devices.naming import gpu_name
from dra_driver.devices.ordering import order_gpus
from dra_driver.devices.policy import DevicePolicy
from dra_driver.errors import HardwareError
from dra_driver.hardware.model import Gpu, Machine


def allocatable_devices(machine: Machine, policy: DevicePolicy) -> DeviceSet:
    """The node's devices in published order.

    A GPU whose MIG mode is on is not offered as a whole: CUDA cannot use it except through MIG devices (NVIDIA's static
    MIG rule). Raises HardwareError when two GPUs claim one minor number, since they would share a name.
    """
    _refuse_shared_minors(machine)
    return DeviceSet(
        devices=tuple(whole_gpu(gpu, machine, policy) for gpu in order_gpus(machine.gpus) if not is_partitioned(gpu))
    )


def whole_gpu(gpu: Gpu, machine: Machine, policy: DevicePolicy) -> AllocatableDevice:
    return AllocatableDevice(
        name=gpu_name(gpu.minor),
        kind=DeviceKind.GPU,
        gpu_uuid=gpu.uuid,
        attributes=gpu_attributes(gpu, machine, policy),
        capacity=gpu_capacity(gpu),
    )


def is_partitioned(gpu: Gpu) -> bool:
    """Whether the GPU is not offered as a whole."""
    return gpu.mig is not None and gpu.mig.enabled


def _refuse_shared_minors(machine: Machine) -> None:
    counts = Counter(gpu.minor for gpu in machine.gpus)
    for minor, count in counts.items():
        if count > 1:
            uuids = ", ".join(gpu.uuid for gpu in machine.gpus if gpu.minor == minor)
            raise HardwareError(
                f"{count} GPUs report minor number {minor}: {uuids}",
                hint="the inventory is inconsistent; restart the kubelet plugin so that it is read again",
            )
