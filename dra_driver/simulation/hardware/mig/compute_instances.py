"""Compute instances within a simulated GPU instance: profiles by slices, also smaller ones, made, listed, destroyed.

A size that the GPU instance cannot have is "not supported" by enum index and "invalid argument" by id; slices that
others hold are "insufficient resources"; a compute instance that a process uses is "in use".
"""

from __future__ import annotations

from typing import Any

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import placing
from dra_driver.simulation.hardware.arguments import Refused, number, require_version, set_address, target
from dra_driver.simulation.hardware.calls import DeviceCall, Function, FunctionTable, compute_instance_of, instance_of
from dra_driver.simulation.hardware.handles import Kind, Target
from dra_driver.simulation.hardware.mig.arrays import write_handles, write_placements
from dra_driver.simulation.hardware.state import ComputeInstanceState, GpuInstanceState, GpuState, instance_uuid

_PROFILE_COUNT = 9  # NVML_COMPUTE_INSTANCE_PROFILE_COUNT
_ENGINE_PROFILE_COUNT = 1  # NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_COUNT: shared
_PROFILE_INFO_V2 = 0x02000088  # nvmlComputeInstanceProfileInfo_v2
_PROFILE_BY_SLICES = {slices: profile for profile, slices in placing.COMPUTE_PROFILE_SLICES.items()}


def _slices_by_enum(call: DeviceCall, profile: Any, engine_profile: Any) -> int:
    wanted = number(profile)
    if not 0 <= wanted < _PROFILE_COUNT or not 0 <= number(engine_profile) < _ENGINE_PROFILE_COUNT:
        raise Refused(Return.INVALID_ARGUMENT)
    slices = placing.COMPUTE_PROFILE_SLICES.get(wanted, 0)
    if slices not in placing.compute_sizes(call.instance_profile.slices):
        raise Refused(Return.NOT_SUPPORTED)
    return slices


def _slices_by_id(call: DeviceCall, profile_id: Any) -> int:
    slices = placing.COMPUTE_PROFILE_SLICES.get(number(profile_id), 0)
    if slices not in placing.compute_sizes(call.instance_profile.slices):
        raise Refused(Return.INVALID_ARGUMENT)
    return slices


def _fill(call: DeviceCall, structure: Any, slices: int) -> None:
    profile = call.instance_profile
    structure.id = _PROFILE_BY_SLICES[slices]
    structure.sliceCount = slices
    structure.instanceCount = len(placing.compute_starts(profile.slices, slices))
    structure.multiprocessorCount = placing.multiprocessors(call.product, profile, slices)
    structure.sharedCopyEngineCount = profile.copy_engines
    structure.sharedDecoderCount = profile.decoders
    structure.sharedEncoderCount = profile.encoders
    structure.sharedJpegCount = profile.jpeg_engines
    structure.sharedOfaCount = profile.ofa_engines


def _profile_info(call: DeviceCall, profile: Any, engine_profile: Any, info: Any) -> None:
    _fill(call, target(info), _slices_by_enum(call, profile, engine_profile))


def _profile_info_v(call: DeviceCall, profile: Any, engine_profile: Any, info: Any) -> None:
    structure, slices = target(info), _slices_by_enum(call, profile, engine_profile)
    require_version(structure, _PROFILE_INFO_V2)
    _fill(call, structure, slices)
    structure.name = f"MIG {placing.device_name(call.instance_profile, slices)}"


def _possible_placements(call: DeviceCall, profile_id: Any, placements: Any, count: Any) -> None:
    slices = _slices_by_id(call, profile_id)
    write_placements(placements, count, placing.compute_starts(call.instance_profile.slices, slices), slices)


def _remaining(call: DeviceCall, profile_id: Any, count: Any) -> None:
    slices = _slices_by_id(call, profile_id)
    target(count).value = len(_free_starts(call, call.instance, slices))


def _free_starts(call: DeviceCall, instance: GpuInstanceState, slices: int) -> list[int]:
    taken = [(each.start, each.slices) for each in instance.compute_instances]
    return placing.free_compute_starts(call.instance_profile.slices, slices, taken)


def _create(call: DeviceCall, profile_id: Any, compute_instance: Any) -> None:
    _make(call, _slices_by_id(call, profile_id), None, compute_instance)


def _create_with_placement(call: DeviceCall, profile_id: Any, placement: Any, compute_instance: Any) -> None:
    where, slices = target(placement), _slices_by_id(call, profile_id)
    if where.size != slices or where.start not in placing.compute_starts(call.instance_profile.slices, slices):
        raise Refused(Return.INVALID_ARGUMENT)
    _make(call, slices, where.start, compute_instance)


def _make(call: DeviceCall, slices: int, wanted_start: int | None, compute_instance: Any) -> None:
    target(compute_instance)
    call.require_privileges()
    made: list[tuple[GpuInstanceState, ComputeInstanceState]] = []

    def change(gpu: GpuState) -> GpuState:
        instance = instance_of(gpu, call.target)
        starts = _free_starts(call, instance, slices)
        start = next(iter(starts), None) if wanted_start is None else wanted_start
        if start is None or start not in starts:
            raise Refused(Return.INSUFFICIENT_RESOURCES)
        taken = {each.id for each in instance.compute_instances}
        identifier = next(number for number in range(len(taken) + 1) if number not in taken)
        new = ComputeInstanceState(
            id=identifier,
            uuid=instance_uuid(gpu.uuid, instance.id, identifier, gpu.creations),
            slices=slices,
            start=start,
            created=gpu.creations,
        )
        computing = tuple(sorted((*instance.compute_instances, new), key=lambda each: each.id))
        changed = instance.with_compute_instances(computing)
        made.append((changed, new))
        return gpu.with_instance(changed, creations=gpu.creations + 1)

    call.change_gpu(change)
    call.give_handle(compute_instance, Target.of_compute_instance(call.index, *made[-1]))


def _destroy(call: DeviceCall) -> None:
    call.require_privileges()

    def change(gpu: GpuState) -> GpuState:
        instance, compute = compute_instance_of(gpu, call.target)
        if gpu.is_used(compute.uuid):
            raise Refused(Return.IN_USE)
        others = tuple(each for each in instance.compute_instances if each.id != compute.id)
        return gpu.with_instance(instance.with_compute_instances(others))

    call.change_gpu(change)


def _list(call: DeviceCall, profile_id: Any, instances: Any, count: Any) -> None:
    slices, instance = _slices_by_id(call, profile_id), call.instance
    found = [
        Target.of_compute_instance(call.index, instance, each)
        for each in instance.compute_instances
        if each.slices == slices
    ]
    write_handles(call.handles, instances, count, found)


def _by_id(call: DeviceCall, wanted: Any, compute_instance: Any) -> None:
    identity, instance = number(wanted), call.instance
    for each in instance.compute_instances:
        if each.id == identity:
            call.give_handle(compute_instance, Target.of_compute_instance(call.index, instance, each))
            return
    raise Refused(Return.NOT_FOUND)


def _info(call: DeviceCall, info: Any) -> None:
    structure, instance, compute = target(info), call.instance, call.compute_instance
    set_address(structure.device, call.handles.address(Target.of_mig_device(call.index, instance, compute)))
    set_address(structure.gpuInstance, call.handles.address(Target.of_gpu_instance(call.index, instance)))
    structure.id, structure.profileId = compute.id, _PROFILE_BY_SLICES[compute.slices]
    structure.placement.start, structure.placement.size = compute.start, compute.slices


FUNCTIONS: FunctionTable = {
    "nvmlGpuInstanceGetComputeInstanceProfileInfo": Function(_profile_info, (Kind.GPU_INSTANCE,)),
    "nvmlGpuInstanceGetComputeInstanceProfileInfoV": Function(_profile_info_v, (Kind.GPU_INSTANCE,)),
    "nvmlGpuInstanceGetComputeInstancePossiblePlacements": Function(_possible_placements, (Kind.GPU_INSTANCE,)),
    "nvmlGpuInstanceGetComputeInstanceRemainingCapacity": Function(_remaining, (Kind.GPU_INSTANCE,)),
    "nvmlGpuInstanceCreateComputeInstance": Function(_create, (Kind.GPU_INSTANCE,)),
    "nvmlGpuInstanceCreateComputeInstanceWithPlacement": Function(_create_with_placement, (Kind.GPU_INSTANCE,)),
    "nvmlComputeInstanceDestroy": Function(_destroy, (Kind.COMPUTE_INSTANCE,)),
    "nvmlGpuInstanceGetComputeInstances": Function(_list, (Kind.GPU_INSTANCE,)),
    "nvmlGpuInstanceGetComputeInstanceById": Function(_by_id, (Kind.GPU_INSTANCE,)),
    "nvmlComputeInstanceGetInfo_v2": Function(_info, (Kind.COMPUTE_INSTANCE,)),
}
