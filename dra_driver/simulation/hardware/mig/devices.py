"""MIG devices of a simulated GPU: its compute instances by index, and what NVML tells of one by its device handle."""

from __future__ import annotations

from typing import Any

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware.arguments import Refused, number, target
from dra_driver.simulation.hardware.calls import DeviceCall, Function, FunctionTable
from dra_driver.simulation.hardware.handles import Kind, Target
from dra_driver.simulation.hardware.mig.profiles import profiles_of
from dra_driver.simulation.hardware.placing import most_mig_devices, multiprocessors


def _max_count(call: DeviceCall, count: Any) -> None:
    target(count).value = most_mig_devices(call.product)


def _by_index(call: DeviceCall, index: Any, device: Any) -> None:
    profiles_of(call)
    wanted = number(index)
    if not 0 <= wanted < most_mig_devices(call.product):
        raise Refused(Return.INVALID_ARGUMENT)
    found = list(call.gpu.mig_devices())
    if not call.gpu.mig_enabled or wanted >= len(found):
        raise Refused(Return.NOT_FOUND)
    call.give_handle(device, Target.of_mig_device(call.index, *found[wanted]))


def _gpu_instance_id(call: DeviceCall, identity: Any) -> None:
    target(identity).value = call.instance.id


def _compute_instance_id(call: DeviceCall, identity: Any) -> None:
    target(identity).value = call.compute_instance.id


def _parent(call: DeviceCall, device: Any) -> None:
    call.give_handle(device, Target(Kind.GPU, call.index))


def _attributes(call: DeviceCall, attributes: Any) -> None:
    """Engines and memory are the GPU instance's: its compute instances share them."""
    structure, profile, compute = target(attributes), call.instance_profile, call.compute_instance
    structure.multiprocessorCount = multiprocessors(call.product, profile, compute.slices)
    structure.sharedCopyEngineCount = profile.copy_engines
    structure.sharedDecoderCount = profile.decoders
    structure.sharedEncoderCount = profile.encoders
    structure.sharedJpegCount = profile.jpeg_engines
    structure.sharedOfaCount = profile.ofa_engines
    structure.gpuInstanceSliceCount, structure.computeInstanceSliceCount = profile.slices, compute.slices
    structure.memorySizeMB = profile.memory_mib


FUNCTIONS: FunctionTable = {
    "nvmlDeviceGetMaxMigDeviceCount": Function(_max_count, (Kind.GPU,)),
    "nvmlDeviceGetMigDeviceHandleByIndex": Function(_by_index, (Kind.GPU,)),
    "nvmlDeviceGetGpuInstanceId": Function(_gpu_instance_id, (Kind.MIG_DEVICE,)),
    "nvmlDeviceGetComputeInstanceId": Function(_compute_instance_id, (Kind.MIG_DEVICE,)),
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": Function(_parent, (Kind.MIG_DEVICE,)),
    "nvmlDeviceGetAttributes_v2": Function(_attributes, (Kind.MIG_DEVICE,)),
}
