"""Simulated MIG queries: mode, profile table, placements, instances. Creation and mode changes are not simulated here.

Return codes follow nvml.h: a product without MIG answers "not supported"; an enum index that NVML does not know answers
"invalid argument" (that is how a caller finds the end), one that this product lacks "not supported"; listing instances
needs MIG mode on.
"""

from __future__ import annotations

from typing import Any

from dra_driver.hardware.nvml.codes import Return
from dra_driver.hardware.simulated.arguments import Refused, number, require_version, set_address, target
from dra_driver.hardware.simulated.calls import DeviceCall, Function, FunctionTable
from dra_driver.hardware.simulated.description import ProfileDescription
from dra_driver.hardware.simulated.handles import Kind, Target

_PROFILE_COUNT = 18  # NVML_GPU_INSTANCE_PROFILE_COUNT of driver 580
_PROFILE_INFO_V2 = 0x02000098  # nvmlGpuInstanceProfileInfo_v2

# Compute instance profiles by slices (NVML_COMPUTE_INSTANCE_PROFILE_*): the whole GPU instance, the only one simulated.
_COMPUTE_PROFILES = {1: 0, 2: 1, 3: 2, 4: 3, 7: 4, 8: 5, 6: 6}


def _profiles(call: DeviceCall) -> tuple[ProfileDescription, ...]:
    profiles = call.product.mig_profiles
    if profiles is None:
        raise Refused(Return.NOT_SUPPORTED)
    return profiles


def _require_mig_on(call: DeviceCall) -> None:
    if call.product.mig_profiles is None or not call.gpu.mig_enabled:
        raise Refused(Return.NOT_SUPPORTED)


def _mode(call: DeviceCall, current: Any, pending: Any) -> None:
    _profiles(call)
    target(current).value, target(pending).value = int(call.gpu.mig_enabled), int(call.gpu.mig_pending)


def _profile_by_enum(call: DeviceCall, profile: Any) -> ProfileDescription:
    wanted = number(profile)
    if not 0 <= wanted < _PROFILE_COUNT:
        raise Refused(Return.INVALID_ARGUMENT)
    for each in _profiles(call):
        if each.enum_index == wanted:
            return each
    raise Refused(Return.NOT_SUPPORTED)


def _profile_by_id(call: DeviceCall, profile_id: Any) -> ProfileDescription:
    wanted = number(profile_id)
    for each in _profiles(call):
        if each.id == wanted:
            return each
    raise Refused(Return.INVALID_ARGUMENT)


def _fill(structure: Any, profile: ProfileDescription) -> None:
    structure.id = profile.id
    structure.isP2pSupported = int(profile.p2p)
    structure.sliceCount = profile.slices
    structure.instanceCount = profile.instances
    structure.multiprocessorCount = profile.multiprocessors
    structure.copyEngineCount = profile.copy_engines
    structure.decoderCount = profile.decoders
    structure.encoderCount = profile.encoders
    structure.jpegCount = profile.jpeg_engines
    structure.ofaCount = profile.ofa_engines
    structure.memorySizeMB = profile.memory_mib


def _profile_info(call: DeviceCall, profile: Any, info: Any) -> None:
    found = _profile_by_enum(call, profile)
    _fill(target(info), found)


def _profile_info_v(call: DeviceCall, profile: Any, info: Any) -> None:
    structure = target(info)
    found = _profile_by_enum(call, profile)
    require_version(structure, _PROFILE_INFO_V2)
    _fill(structure, found)
    structure.name = f"MIG {found.name}"


def _possible_placements(call: DeviceCall, profile_id: Any, placements: Any, count: Any) -> None:
    found = _profile_by_id(call, profile_id).placements
    room = target(count)
    available, room.value = room.value, len(found.starts)
    if placements is None:
        return
    if min(available, len(placements)) < len(found.starts):
        raise Refused(Return.INSUFFICIENT_SIZE)
    for slot, start in zip(placements, found.starts, strict=False):
        slot.start, slot.size = start, found.size


def _gpu_instances(call: DeviceCall, profile_id: Any, instances: Any, count: Any) -> None:
    _require_mig_on(call)
    wanted = _profile_by_id(call, profile_id).id
    ids = sorted({each.gpu_instance for each in call.gpu.instances if each.profile == wanted})
    if instances is None:
        raise Refused(Return.INVALID_ARGUMENT)
    if len(instances) < len(ids):
        raise Refused(Return.INSUFFICIENT_SIZE)
    for position, each in enumerate(ids):
        # instances[position] is a view of the caller's array, so that writing it writes the array
        set_address(instances[position], call.handles.address(Target(Kind.GPU_INSTANCE, call.index, each)))
    target(count).value = len(ids)


def _gpu_instance_by_id(call: DeviceCall, wanted: Any, instance: Any) -> None:
    _require_mig_on(call)
    identity = number(wanted)
    if all(each.gpu_instance != identity for each in call.gpu.instances):
        raise Refused(Return.NOT_FOUND)
    call.give_handle(instance, Target(Kind.GPU_INSTANCE, call.index, identity))


def _gpu_instance_info(call: DeviceCall, info: Any) -> None:
    structure = target(info)
    set_address(structure.device, call.handles.address(Target(Kind.GPU, call.index)))
    structure.id, structure.profileId = call.instance.gpu_instance, call.instance.profile
    structure.placement.start, structure.placement.size = call.instance.start, call.instance_profile.placements.size


def _compute_instances(call: DeviceCall, profile_id: Any, instances: Any, count: Any) -> None:
    wanted = number(profile_id)
    gpu_instance = call.instance.gpu_instance
    ids = [each.compute_instance for each in call.gpu.instances if each.gpu_instance == gpu_instance]
    if wanted != _compute_profile(call):
        ids = []
    if instances is None:
        raise Refused(Return.INVALID_ARGUMENT)
    if len(instances) < len(ids):
        raise Refused(Return.INSUFFICIENT_SIZE)
    for position, each in enumerate(ids):
        found = Target(Kind.COMPUTE_INSTANCE, call.index, gpu_instance, each)
        set_address(instances[position], call.handles.address(found))
    target(count).value = len(ids)


def _compute_instance_info(call: DeviceCall, info: Any) -> None:
    structure, found = target(info), call.instance
    device = Target(Kind.MIG_DEVICE, call.index, found.gpu_instance, found.compute_instance)
    set_address(structure.device, call.handles.address(device))
    parent = Target(Kind.GPU_INSTANCE, call.index, found.gpu_instance)
    set_address(structure.gpuInstance, call.handles.address(parent))
    structure.id, structure.profileId = found.compute_instance, _compute_profile(call)
    structure.placement.start, structure.placement.size = 0, call.instance_profile.slices


def _compute_profile(call: DeviceCall) -> int:
    return _COMPUTE_PROFILES[call.instance_profile.slices]


def _max_mig_devices(call: DeviceCall, count: Any) -> None:
    profiles = call.product.mig_profiles or ()
    target(count).value = max((profile.instances for profile in profiles), default=0)


def _mig_device_by_index(call: DeviceCall, index: Any, device: Any) -> None:
    wanted, most = number(index), max((profile.instances for profile in _profiles(call)), default=0)
    if not 0 <= wanted < most:
        raise Refused(Return.INVALID_ARGUMENT)
    if not call.gpu.mig_enabled or wanted >= len(call.gpu.instances):
        raise Refused(Return.NOT_FOUND)
    found = call.gpu.instances[wanted]
    call.give_handle(device, Target(Kind.MIG_DEVICE, call.index, found.gpu_instance, found.compute_instance))


def _gpu_instance_id(call: DeviceCall, identity: Any) -> None:
    target(identity).value = call.instance.gpu_instance


def _compute_instance_id(call: DeviceCall, identity: Any) -> None:
    target(identity).value = call.instance.compute_instance


def _parent(call: DeviceCall, device: Any) -> None:
    call.give_handle(device, Target(Kind.GPU, call.index))


def _attributes(call: DeviceCall, attributes: Any) -> None:
    structure, profile = target(attributes), call.instance_profile
    structure.multiprocessorCount = profile.multiprocessors
    structure.sharedCopyEngineCount = profile.copy_engines
    structure.sharedDecoderCount = profile.decoders
    structure.sharedEncoderCount = profile.encoders
    structure.sharedJpegCount = profile.jpeg_engines
    structure.sharedOfaCount = profile.ofa_engines
    structure.gpuInstanceSliceCount = structure.computeInstanceSliceCount = profile.slices
    structure.memorySizeMB = profile.memory_mib


FUNCTIONS: FunctionTable = {
    "nvmlDeviceGetMigMode": Function(_mode, (Kind.GPU,)),
    "nvmlDeviceGetGpuInstanceProfileInfo": Function(_profile_info, (Kind.GPU,)),
    "nvmlDeviceGetGpuInstanceProfileInfoV": Function(_profile_info_v, (Kind.GPU,)),
    "nvmlDeviceGetGpuInstancePossiblePlacements_v2": Function(_possible_placements, (Kind.GPU,)),
    "nvmlDeviceGetGpuInstances": Function(_gpu_instances, (Kind.GPU,)),
    "nvmlDeviceGetGpuInstanceById": Function(_gpu_instance_by_id, (Kind.GPU,)),
    "nvmlGpuInstanceGetInfo": Function(_gpu_instance_info, (Kind.GPU_INSTANCE,)),
    "nvmlGpuInstanceGetComputeInstances": Function(_compute_instances, (Kind.GPU_INSTANCE,)),
    "nvmlComputeInstanceGetInfo_v2": Function(_compute_instance_info, (Kind.COMPUTE_INSTANCE,)),
    "nvmlDeviceGetMaxMigDeviceCount": Function(_max_mig_devices, (Kind.GPU,)),
    "nvmlDeviceGetMigDeviceHandleByIndex": Function(_mig_device_by_index, (Kind.GPU,)),
    "nvmlDeviceGetGpuInstanceId": Function(_gpu_instance_id, (Kind.MIG_DEVICE,)),
    "nvmlDeviceGetComputeInstanceId": Function(_compute_instance_id, (Kind.MIG_DEVICE,)),
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": Function(_parent, (Kind.MIG_DEVICE,)),
    "nvmlDeviceGetAttributes_v2": Function(_attributes, (Kind.MIG_DEVICE,)),
}
