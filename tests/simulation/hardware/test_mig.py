"""MIG of the simulated library under pynvml: what is refused, with which code, and what stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref, c_uint
from itertools import pairwise
from typing import Any

import pynvml
import pytest

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import faults, load_machine, placing, recorded_machines
from tests.simulated_node import Node, NodeMaker

WITH_MIG = [name for name in recorded_machines() if load_machine(name).hardware.products[0].mig_profiles]


def code_of(call: Callable[..., object], *arguments: object) -> int:
    """SUCCESS when nothing is raised."""
    try:
        call(*arguments)
    except pynvml.NVMLError as error:
        return int(error.value)
    return int(Return.SUCCESS)


def gpu(index: int = 0) -> Any:
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def enable(node: Node, index: int = 0) -> Any:
    node.file.update(
        lambda state: state.with_gpu(
            index, state.gpus[index].model_copy(update={"mig_enabled": True, "mig_pending": True})
        )
    )
    return gpu(index)


def place(start: int, size: int) -> Any:
    return byref(pynvml.c_nvmlGpuInstancePlacement_t(start, size))


def create(handle: Any, profile: int, start: int, size: int) -> Any:
    return pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(handle, profile, place(start, size))


@pytest.fixture
def h100(make_node: NodeMaker) -> Node:
    node = make_node("h100-sxm5-80gb")
    enable(node)
    return node


# -- mode --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "busy", "wanted", "status", "mode"),
    [
        ("h100-sxm5-80gb", False, 1, Return.SUCCESS, [1, 1]),
        ("b200", False, 1, Return.SUCCESS, [1, 1]),
        ("h200", True, 1, Return.IN_USE, [0, 1]),
        ("h200", True, 0, Return.SUCCESS, [0, 0]),
        ("a100-sxm4-40gb", False, 1, Return.RESET_REQUIRED, [0, 1]),
        ("a30", True, 1, Return.RESET_REQUIRED, [0, 1]),
        ("a30", False, 0, Return.SUCCESS, [0, 0]),
    ],
)
def test_setting_the_mode_answers_with_the_activation(
    make_node: NodeMaker, machine: str, busy: bool, wanted: int, status: Return, mode: list[int]
) -> None:
    node = make_node(machine)
    if busy:
        faults.add_client(node.state_file, node.file.read().gpus[0].uuid)
    assert pynvml.nvmlDeviceSetMigMode(gpu(), wanted) == status
    assert pynvml.nvmlDeviceGetMigMode(gpu()) == mode
    assert pynvml.nvmlDeviceGetMigMode(gpu(1)) == [0, 0]
    faults.reset_gpu(node.state_file, 0)
    assert pynvml.nvmlDeviceGetMigMode(gpu()) == [mode[1], mode[1]]


def test_a_pending_mode_can_be_taken_back(make_node: NodeMaker) -> None:
    make_node("a30")
    assert pynvml.nvmlDeviceSetMigMode(gpu(), 1) == Return.RESET_REQUIRED
    assert pynvml.nvmlDeviceSetMigMode(gpu(), 0) == Return.SUCCESS
    assert pynvml.nvmlDeviceGetMigMode(gpu()) == [0, 0]


def test_mode_refusals(make_node: NodeMaker) -> None:
    node = make_node("h100-nvl")
    assert code_of(lambda: pynvml.nvmlDeviceSetMigMode(gpu(), 2)) == Return.INVALID_ARGUMENT
    create(enable(node), 19, 6, 1)
    assert code_of(lambda: pynvml.nvmlDeviceSetMigMode(gpu(), 0)) == Return.IN_USE
    assert pynvml.nvmlDeviceGetMigMode(gpu()) == [1, 1], "a refused change is not pending"


def test_a_product_without_mig_has_no_mode(make_node: NodeMaker) -> None:
    make_node("l40s")
    assert code_of(pynvml.nvmlDeviceSetMigMode, gpu(), 1) == Return.NOT_SUPPORTED


# -- GPU instances -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "made", "wanted", "code"),
    [
        # memory slices
        ("h100-sxm5-80gb", [], (9, 4, 4), Return.SUCCESS),
        ("h100-sxm5-80gb", [(9, 4, 4)], (9, 4, 4), Return.INSUFFICIENT_RESOURCES),
        ("h100-sxm5-80gb", [(9, 4, 4)], (19, 6, 1), Return.INSUFFICIENT_RESOURCES),
        ("h100-sxm5-80gb", [(9, 4, 4)], (5, 0, 4), Return.SUCCESS),
        ("h100-sxm5-80gb", [(14, 0, 2), (14, 2, 2), (14, 4, 2)], (19, 6, 1), Return.SUCCESS),
        # compute slices: seven, whatever memory is left
        ("h100-sxm5-80gb", [(5, 0, 4), (14, 4, 2)], (15, 6, 2), Return.SUCCESS),
        ("h100-sxm5-80gb", [(5, 0, 4), (9, 4, 4)], (19, 6, 1), Return.INSUFFICIENT_RESOURCES),
        ("h100-sxm5-80gb", [(19, n, 1) for n in range(6)], (15, 6, 2), Return.SUCCESS),
        # places that the profile does not list, and profiles that the product lacks
        ("h100-sxm5-80gb", [], (9, 2, 4), Return.INVALID_ARGUMENT),
        ("h100-sxm5-80gb", [], (9, 4, 2), Return.INVALID_ARGUMENT),
        ("h100-sxm5-80gb", [], (19, 7, 1), Return.INVALID_ARGUMENT),
        ("h100-sxm5-80gb", [], (1, 0, 2), Return.INVALID_ARGUMENT),
        # one OFA engine: one +me, and none beside the whole GPU's
        ("h100-sxm5-80gb", [(20, 0, 1)], (20, 1, 1), Return.INSUFFICIENT_RESOURCES),
        ("h100-sxm5-80gb", [(20, 0, 1)], (19, 1, 1), Return.SUCCESS),
        ("a30", [(21, 0, 1)], (6, 2, 2), Return.INSUFFICIENT_RESOURCES),
        ("a30", [(21, 0, 1)], (5, 2, 2), Return.SUCCESS),
        # +me.all has every decoder; -me has none
        ("rtx-pro-6000", [(65, 0, 3)], (14, 3, 3), Return.INSUFFICIENT_RESOURCES),
        ("rtx-pro-6000", [(65, 0, 3)], (47, 3, 3), Return.INSUFFICIENT_RESOURCES),
        ("rtx-pro-6000", [(65, 0, 3)], (67, 3, 3), Return.SUCCESS),
        ("rtx-pro-6000", [(64, 0, 6)], (66, 6, 6), Return.SUCCESS),
        ("rtx-pro-6000", [(64, 0, 6)], (5, 6, 6), Return.INSUFFICIENT_RESOURCES),
        ("rtx-pro-6000", [(47, 0, 3)], (14, 3, 3), Return.SUCCESS),
        ("rtx-pro-6000", [(67, 0, 3)], (35, 6, 6), Return.SUCCESS),
    ],
)
def test_where_a_gpu_instance_may_be_made(
    make_node: NodeMaker, machine: str, made: list[tuple[int, int, int]], wanted: tuple[int, int, int], code: Return
) -> None:
    node = make_node(machine)
    handle = enable(node)
    for each in made:
        create(handle, *each)
    before = node.file.read()
    assert code_of(lambda: create(handle, *wanted)) == code
    assert (node.file.read() == before) == (code != Return.SUCCESS)


@pytest.mark.parametrize("name", WITH_MIG)
def test_as_many_instances_fit_as_the_profile_says(make_node: NodeMaker, name: str) -> None:
    """Where NVML puts them; and the remaining capacity is right at each step."""
    node = make_node(name)
    handle = enable(node)
    for profile in load_machine(name).hardware.products[0].mig_profiles or ():
        instances = []
        for left in range(profile.instances, 0, -1):
            assert pynvml.nvmlDeviceGetGpuInstanceRemainingCapacity(handle, profile.id) == left
            instances.append(pynvml.nvmlDeviceCreateGpuInstance(handle, profile.id))
        assert pynvml.nvmlDeviceGetGpuInstanceRemainingCapacity(handle, profile.id) == 0
        again = code_of(pynvml.nvmlDeviceCreateGpuInstance, handle, profile.id)
        assert again == Return.INSUFFICIENT_RESOURCES
        infos = [pynvml.nvmlGpuInstanceGetInfo(each) for each in instances]
        places = sorted((info.placement.start, info.placement.size) for info in infos)
        assert all(start + size <= following for (start, size), (following, _) in pairwise(places))
        assert {start for start, _ in places} <= set(profile.placements.starts)
        ids = [info.id for info in infos]
        assert len(set(ids)) == len(ids)
        assert max(ids) < 15, "the kernel module has minors for 15"
        buffer, count = (pynvml.c_nvmlGpuInstance_t * profile.instances)(), c_uint()
        pynvml.nvmlDeviceGetGpuInstances(handle, profile.id, buffer, byref(count))
        assert sorted(pynvml.nvmlGpuInstanceGetInfo(each).id for each in buffer[: count.value]) == sorted(ids)
        for each in instances:
            pynvml.nvmlGpuInstanceDestroy(each)
    assert node.file.read().gpus[0].instances == ()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda handle: create(handle, 19, 0, 1), Return.NOT_SUPPORTED),
        (lambda handle: pynvml.nvmlDeviceCreateGpuInstance(handle, 19), Return.NOT_SUPPORTED),
        (lambda handle: pynvml.nvmlDeviceGetGpuInstanceById(handle, 7), Return.NOT_SUPPORTED),
        (lambda handle: pynvml.nvmlDeviceGetGpuInstanceRemainingCapacity(handle, 19), Return.NOT_SUPPORTED),
        (lambda handle: pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, 0), Return.NOT_FOUND),
        (lambda handle: pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, 0), Return.SUCCESS),
        (lambda handle: pynvml.nvmlDeviceGetGpuInstanceProfileInfoById(handle, 19), Return.SUCCESS),
        (lambda handle: pynvml.nvmlDeviceGetGpuInstanceProfileInfoById(handle, 1), Return.INVALID_ARGUMENT),
    ],
)
def test_with_mig_off(make_node: NodeMaker, call: Callable[[Any], object], code: Return) -> None:
    make_node("h100-sxm5-80gb")
    assert code_of(lambda: call(gpu())) == code


def test_changes_need_privileges(h100: Node) -> None:
    instance = create(gpu(), 9, 0, 4)
    compute = pynvml.nvmlGpuInstanceCreateComputeInstance(instance, 0)
    h100.file.update(lambda state: state.model_copy(update={"privileged": False}))
    before = h100.file.read()
    for call in (
        lambda: pynvml.nvmlDeviceSetMigMode(gpu(1), 1),
        lambda: create(gpu(), 19, 4, 1),
        lambda: pynvml.nvmlGpuInstanceCreateComputeInstance(instance, 0),
        lambda: pynvml.nvmlComputeInstanceDestroy(compute),
        lambda: pynvml.nvmlGpuInstanceDestroy(instance),
    ):
        assert code_of(call) == Return.NO_PERMISSION
    assert h100.file.read() == before
    assert pynvml.nvmlGpuInstanceGetInfo(instance).profileId == 9


# -- compute instances -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "size", "sizes"),
    [(19, 1, {0: 1}), (14, 2, {0: 1, 1: 2}), (9, 4, {0: 1, 1: 2, 2: 3}), (5, 4, {0: 1, 1: 2, 3: 4})],
)
def test_compute_profiles_of_a_gpu_instance(h100: Node, profile: int, size: int, sizes: dict[int, int]) -> None:
    instance = create(gpu(), profile, 0, size)
    found = {}
    for index in range(pynvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        code = code_of(pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo, instance, index, 0)
        if code == Return.SUCCESS:
            info = pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, index, 0)
            found[index] = info.sliceCount
        else:
            assert code == Return.NOT_SUPPORTED
    assert found == sizes
    for index, engines in ((9, 0), (0, 1)):
        code = code_of(pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo, instance, index, engines)
        assert code == Return.INVALID_ARGUMENT


def test_seven_slices_are_profile_four(make_node: NodeMaker) -> None:
    node = make_node("a100-sxm4-40gb")
    instance = create(enable(node), 0, 0, 8)
    info = pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, 4, 0)
    assert (info.id, info.sliceCount, info.name, info.multiprocessorCount) == (4, 7, "MIG 7g.40gb", 98)
    for absent in (pynvml.NVML_COMPUTE_INSTANCE_PROFILE_7_SLICE_NVL, pynvml.NVML_COMPUTE_INSTANCE_PROFILE_8_SLICE):
        code = code_of(pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo, instance, absent, 0)
        assert code == Return.NOT_SUPPORTED
        code = code_of(pynvml.nvmlGpuInstanceCreateComputeInstance, instance, absent)
        assert code == Return.INVALID_ARGUMENT
    assert pynvml.nvmlComputeInstanceGetInfo(pynvml.nvmlGpuInstanceCreateComputeInstance(instance, 4)).id == 0


def test_parts_of_a_gpu_instance(h100: Node) -> None:
    instance = create(gpu(), 9, 4, 4)
    old = pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, 0, 0, version=1)
    new = pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, 0, 0)
    assert (old.id, old.instanceCount, old.multiprocessorCount) == (new.id, new.instanceCount, new.multiprocessorCount)
    assert (new.name, new.instanceCount, new.multiprocessorCount) == ("MIG 1c.3g.40gb", 3, 16)
    assert new.sharedDecoderCount == 3
    count = c_uint(0)
    pynvml.nvmlGpuInstanceGetComputeInstancePossiblePlacements(instance, 0, None, byref(count))
    buffer = (pynvml.c_nvmlComputeInstancePlacement_t * count.value)()
    pynvml.nvmlGpuInstanceGetComputeInstancePossiblePlacements(instance, 0, buffer, byref(count))
    assert [(each.start, each.size) for each in buffer] == [(0, 1), (1, 1), (2, 1)]
    middle = pynvml.c_nvmlComputeInstancePlacement_t(1, 1)
    made = [
        pynvml.nvmlGpuInstanceCreateComputeInstanceWithPlacement(instance, 0, byref(middle)),
        pynvml.nvmlGpuInstanceCreateComputeInstance(instance, 0),
    ]
    assert pynvml.nvmlGpuInstanceGetComputeInstanceRemainingCapacity(instance, 0) == 1
    assert pynvml.nvmlGpuInstanceGetComputeInstanceRemainingCapacity(instance, 1) == 0
    for profile, where, code in (
        (0, middle, Return.INSUFFICIENT_RESOURCES),
        (0, pynvml.c_nvmlComputeInstancePlacement_t(3, 1), Return.INVALID_ARGUMENT),
        (0, pynvml.c_nvmlComputeInstancePlacement_t(2, 2), Return.INVALID_ARGUMENT),
    ):
        create_at = pynvml.nvmlGpuInstanceCreateComputeInstanceWithPlacement
        assert code_of(create_at, instance, profile, byref(where)) == code
    assert code_of(lambda: pynvml.nvmlGpuInstanceCreateComputeInstance(instance, 1)) == Return.INSUFFICIENT_RESOURCES
    infos = [pynvml.nvmlComputeInstanceGetInfo(each) for each in made]
    assert [(info.id, info.profileId, info.placement.start, info.placement.size) for info in infos] == [
        (0, 0, 1, 1),
        (1, 0, 0, 1),
    ]
    device = infos[1].device
    attributes = pynvml.nvmlDeviceGetAttributes(device)
    assert (attributes.gpuInstanceSliceCount, attributes.computeInstanceSliceCount) == (3, 1)
    assert (attributes.multiprocessorCount, attributes.memorySizeMB) == (16, 40448)
    assert pynvml.nvmlDeviceGetName(device) == "NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb"
    listed, found = (pynvml.c_nvmlComputeInstance_t * 3)(), c_uint()
    pynvml.nvmlGpuInstanceGetComputeInstances(instance, 0, listed, byref(found))
    assert [pynvml.nvmlComputeInstanceGetInfo(each).id for each in listed[: found.value]] == [0, 1]
    assert code_of(lambda: pynvml.nvmlGpuInstanceGetComputeInstanceById(instance, 2)) == Return.NOT_FOUND


@pytest.mark.parametrize(
    ("slices", "sizes"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (7, [1, 2, 3, 4, 7])]
)
def test_sizes_of_compute_instances(slices: int, sizes: list[int]) -> None:
    assert list(placing.compute_sizes(slices)) == sizes


# -- what is gone ------------------------------------------------------------------------------------------------------


def test_the_order_of_destruction(h100: Node) -> None:
    instance = create(gpu(), 14, 2, 2)
    compute = pynvml.nvmlGpuInstanceCreateComputeInstance(instance, 1)
    uuid = pynvml.nvmlDeviceGetUUID(pynvml.nvmlComputeInstanceGetInfo(compute).device)
    assert code_of(lambda: pynvml.nvmlGpuInstanceDestroy(instance)) == Return.IN_USE
    faults.add_client(h100.state_file, uuid, pid=77)
    device = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    assert [each.pid for each in pynvml.nvmlDeviceGetComputeRunningProcesses(device)] == [77]
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(gpu()) == []
    assert code_of(lambda: pynvml.nvmlComputeInstanceDestroy(compute)) == Return.IN_USE
    faults.remove_client(h100.state_file, uuid, pid=77)
    pynvml.nvmlComputeInstanceDestroy(compute)
    pynvml.nvmlGpuInstanceDestroy(instance)
    with pytest.raises(ValueError, match=uuid):
        faults.add_client(h100.state_file, uuid)


def test_a_recreated_instance_is_another_one(h100: Node) -> None:
    """The same ids at the same place; the old handles and the old UUID stand for nothing."""
    old = create(gpu(), 14, 2, 2)
    old_compute = pynvml.nvmlGpuInstanceCreateComputeInstance(old, 1)
    old_info = pynvml.nvmlComputeInstanceGetInfo(old_compute)
    old_uuid = pynvml.nvmlDeviceGetUUID(old_info.device)
    pynvml.nvmlComputeInstanceDestroy(old_compute)
    new_compute = pynvml.nvmlGpuInstanceCreateComputeInstance(old, 1)
    assert pynvml.nvmlComputeInstanceGetInfo(new_compute).id == old_info.id
    for call in (
        lambda: pynvml.nvmlComputeInstanceGetInfo(old_compute),
        lambda: pynvml.nvmlComputeInstanceDestroy(old_compute),
        lambda: pynvml.nvmlDeviceGetUUID(old_info.device),
        lambda: pynvml.nvmlDeviceGetHandleByUUID(old_uuid),
    ):
        assert code_of(call) == Return.NOT_FOUND
    pynvml.nvmlComputeInstanceDestroy(new_compute)
    pynvml.nvmlGpuInstanceDestroy(old)
    new = create(gpu(), 14, 2, 2)
    assert pynvml.nvmlGpuInstanceGetInfo(new).id == 3
    for call in (
        lambda: pynvml.nvmlGpuInstanceGetInfo(old),
        lambda: pynvml.nvmlGpuInstanceDestroy(old),
        lambda: pynvml.nvmlGpuInstanceCreateComputeInstance(old, 1),
    ):
        assert code_of(call) == Return.NOT_FOUND


def test_indices_of_mig_devices_shift(h100: Node) -> None:
    made = [pynvml.nvmlGpuInstanceCreateComputeInstance(create(gpu(), 19, start, 1), 0) for start in (0, 1, 2)]
    uuids = [pynvml.nvmlDeviceGetUUID(pynvml.nvmlComputeInstanceGetInfo(each).device) for each in made]

    def by_index(index: int) -> str:
        return str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu(), index)))

    assert [by_index(index) for index in range(3)] == uuids
    pynvml.nvmlComputeInstanceDestroy(made[0])
    assert [by_index(index) for index in range(2)] == uuids[1:]
    assert code_of(lambda: by_index(2)) == Return.NOT_FOUND
    assert code_of(lambda: by_index(7)) == Return.INVALID_ARGUMENT
    assert len(h100.file.read().gpus[0].instances) == 3, "a GPU instance without a compute instance is no MIG device"


def test_a_reset_takes_instances_and_processes_away(h100: Node) -> None:
    compute = pynvml.nvmlGpuInstanceCreateComputeInstance(create(gpu(), 9, 0, 4), 2)
    uuid = pynvml.nvmlDeviceGetUUID(pynvml.nvmlComputeInstanceGetInfo(compute).device)
    faults.add_client(h100.state_file, uuid)
    faults.reset_gpu(h100.state_file, 0)
    state = h100.file.read().gpus[0]
    assert (state.instances, state.clients, state.mig_enabled) == ((), (), True)
