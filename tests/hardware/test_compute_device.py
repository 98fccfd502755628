"""What a CUDA program would use, by UUID: whole GPUs and MIG devices as they are."""

from __future__ import annotations

import pytest

from dra_driver.errors import HardwareError
from dra_driver.hardware.nvml import MigControl
from dra_driver.hardware.nvml.compute_device import ComputeDevice, read_compute_device
from dra_driver.simulation.hardware.faults import inject_error, lose_gpu
from tests.simulated_node import NodeMaker


def test_a_whole_gpu(make_node: NodeMaker) -> None:
    node = make_node("t4")
    gpu = node.hardware.read_machine().gpus[0]
    assert gpu.memory_bytes is not None
    assert read_compute_device(gpu.uuid) == ComputeDevice(gpu.uuid, False, gpu.memory_bytes >> 20, (7, 5))


def test_a_mig_device(make_node: NodeMaker) -> None:
    node = make_node("h100-sxm5-80gb")
    gpu, control = node.hardware.read_machine().gpus[0], MigControl()
    assert gpu.mig is not None
    control.set_mode(gpu.uuid, True)
    profile = gpu.mig.profile(19)
    assert profile is not None
    made = control.create_gpu_instance(gpu.uuid, profile.id, profile.placements[0])
    uuid = control.create_compute_instance(gpu.uuid, made, profile.slice_count).uuid
    assert read_compute_device(uuid) == ComputeDevice(uuid, True, profile.memory_mib, (9, 0))
    control.destroy_compute_instance(gpu.uuid, made, 0)
    assert read_compute_device(uuid) is None


@pytest.mark.parametrize("uuid", ["GPU-00000000-0000-0000-0000-000000000000", "MIG-nothing", "", "0"])
def test_nothing_is_none(make_node: NodeMaker, uuid: str) -> None:
    make_node("t4")
    assert read_compute_device(uuid) is None


def test_a_gpu_that_was_lost_is_none(make_node: NodeMaker) -> None:
    node = make_node("t4")
    uuid = node.hardware.read_machine().gpus[0].uuid
    lose_gpu(node.state_file, 0)
    assert read_compute_device(uuid) is None


def test_what_cannot_be_read_is_an_error(make_node: NodeMaker) -> None:
    node = make_node("t4")
    uuid = node.hardware.read_machine().gpus[0].uuid
    inject_error(node.state_file, "nvmlDeviceGetMemoryInfo", 999)
    with pytest.raises(HardwareError, match="nvmlDeviceGetMemoryInfo"):
        read_compute_device(uuid)
