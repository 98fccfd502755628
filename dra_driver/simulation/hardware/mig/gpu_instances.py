"""GPU instances of a simulated GPU: made at a place, or at one of NVML's choice; listed; destroyed when empty.

Codes: MIG off, "not supported"; a place that the profile does not list, "invalid argument"; a place, compute slices or
media engines that others hold, "insufficient resources"; an instance with compute instances, "in use".
"""

from __future__ import annotations

from typing import Any

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import placing
from dra_driver.simulation.hardware.arguments import Refused, number, set_address, target
from dra_driver.simulation.hardware.calls import DeviceCall, Function, FunctionTable, instance_of
from dra_driver.simulation.hardware.description import ProductDescription, ProfileDescription
from dra_driver.simulation.hardware.handles import Kind, Target
from dra_driver.simulation.hardware.mig.arrays import write_handles
from dra_driver.simulation.hardware.mig.profiles import profile_by_id, require_mig_on
from dra_driver.simulation.hardware.state import GpuInstanceState, GpuState


def _create(call: DeviceCall, profile_id: Any, instance: Any) -> None:
    _make(call, profile_id, None, instance)


def _create_with_placement(call: DeviceCall, profile_id: Any, placement: Any, instance: Any) -> None:
    where = target(placement)
    _make(call, profile_id, (where.start, where.size), instance)


def _make(call: DeviceCall, profile_id: Any, place: tuple[int, int] | None, instance: Any) -> None:
    require_mig_on(call)
    profile = profile_by_id(call, profile_id)
    listed = profile.placements
    if place is not None and (place[0] not in listed.starts or place[1] != listed.size):
        raise Refused(Return.INVALID_ARGUMENT)
    target(instance)
    call.require_privileges()
    made: list[GpuInstanceState] = []

    def change(gpu: GpuState) -> GpuState:
        if not gpu.mig_enabled:
            raise Refused(Return.NOT_SUPPORTED)
        start = _start(call.product, gpu, profile, place)
        identifier = placing.free_instance_id(call.product, profile, (each.id for each in gpu.instances))
        new = GpuInstanceState(id=identifier, profile=profile.id, start=start, created=gpu.creations)
        made.append(new)
        return gpu.with_instance(new, creations=gpu.creations + 1)

    call.change_gpu(change)
    call.give_handle(instance, Target.of_gpu_instance(call.index, made[-1]))


def _start(
    product: ProductDescription, gpu: GpuState, profile: ProfileDescription, place: tuple[int, int] | None
) -> int:
    occupied = _occupied(product, gpu)
    start = placing.chosen_start(product, occupied, profile) if place is None else place[0]
    if start is None or not placing.fits(product, occupied, profile, start):
        raise Refused(Return.INSUFFICIENT_RESOURCES)
    return start


def _occupied(product: ProductDescription, gpu: GpuState) -> placing.Occupied:
    found = [(product.profile(each.profile), each.start) for each in gpu.instances]
    return [(profile, start) for profile, start in found if profile is not None]


def _destroy(call: DeviceCall) -> None:
    call.require_privileges()

    def change(gpu: GpuState) -> GpuState:
        instance = instance_of(gpu, call.target)
        if instance.compute_instances:
            raise Refused(Return.IN_USE)
        return gpu.with_instances(tuple(each for each in gpu.instances if each.id != instance.id))

    call.change_gpu(change)


def _list(call: DeviceCall, profile_id: Any, instances: Any, count: Any) -> None:
    require_mig_on(call)
    wanted = profile_by_id(call, profile_id).id
    found = [Target.of_gpu_instance(call.index, each) for each in call.gpu.instances if each.profile == wanted]
    write_handles(call.handles, instances, count, found)


def _by_id(call: DeviceCall, wanted: Any, instance: Any) -> None:
    require_mig_on(call)
    found = call.gpu.instance(number(wanted))
    if found is None:
        raise Refused(Return.NOT_FOUND)
    call.give_handle(instance, Target.of_gpu_instance(call.index, found))


def _info(call: DeviceCall, info: Any) -> None:
    structure, found = target(info), call.instance
    set_address(structure.device, call.handles.address(Target(Kind.GPU, call.index)))
    structure.id, structure.profileId = found.id, found.profile
    structure.placement.start, structure.placement.size = found.start, call.instance_profile.placements.size


def _remaining(call: DeviceCall, profile_id: Any, count: Any) -> None:
    require_mig_on(call)
    profile = profile_by_id(call, profile_id)
    target(count).value = placing.remaining(call.product, _occupied(call.product, call.gpu), profile)


FUNCTIONS: FunctionTable = {
    "nvmlDeviceCreateGpuInstance": Function(_create, (Kind.GPU,)),
    "nvmlDeviceCreateGpuInstanceWithPlacement": Function(_create_with_placement, (Kind.GPU,)),
    "nvmlGpuInstanceDestroy": Function(_destroy, (Kind.GPU_INSTANCE,)),
    "nvmlDeviceGetGpuInstances": Function(_list, (Kind.GPU,)),
    "nvmlDeviceGetGpuInstanceById": Function(_by_id, (Kind.GPU,)),
    "nvmlGpuInstanceGetInfo": Function(_info, (Kind.GPU_INSTANCE,)),
    "nvmlDeviceGetGpuInstanceRemainingCapacity": Function(_remaining, (Kind.GPU,)),
}
