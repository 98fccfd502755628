"""The same cases on the fake in memory and on the real adapter over the simulated NVML: what both must answer alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dra_driver.errors import HardwareError
from dra_driver.hardware.model import Gpu, Machine, MigPlacement
from dra_driver.hardware.nvml import GpuBusy, InstanceInUse, MigControl, NvmlHardware, PlacementOccupied
from dra_driver.hardware.sysfs import Sysfs
from dra_driver.simulation.hardware import create_state, host_root, install, uninstall
from kubelet_plugin.hardware.mig import MigHardware, MigNow, destroy, look
from tests.devices.recorded import recorded
from tests.kubelet_plugin.kinds.mig.fake import FakeMig

MACHINE = "h100-sxm5-80gb"
WHOLE, HALF, FOUR, ONE, ME = 0, 9, 5, 19, 20

Lab = tuple[MigHardware, Gpu]


def _fake(folder: Path) -> Iterator[Lab]:
    machine = recorded(MACHINE, 2)
    yield FakeMig(machine), machine.gpus[1]


def _nvml(folder: Path) -> Iterator[Lab]:
    create_state(MACHINE, folder / "state.json", seed="node-0")
    host_root.build(folder / "root", folder / "state.json")
    install(folder / "state.json")
    hardware = NvmlHardware(driver_root=folder / "root", topology=Sysfs(folder / "root"))
    hardware.start()
    machine: Machine = hardware.read_machine()
    yield MigControl(), machine.gpus[1]
    hardware.stop()
    uninstall()


@pytest.fixture(params=[_fake, _nvml], ids=["fake", "nvml"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    make: Callable[[Path], Iterator[Lab]] = request.param
    yield from make(tmp_path)


def at(start: int, size: int) -> MigPlacement:
    return MigPlacement(start, size)


def test_nothing_is_there_at_first(lab: Lab) -> None:
    mig, gpu = lab
    assert mig.mode(gpu.uuid) == (False, False)
    assert mig.instances(gpu.uuid) == ()
    assert look(mig, gpu.uuid) == MigNow(False)


def test_mode_on_and_off_at_once(lab: Lab) -> None:
    mig, gpu = lab
    mig.set_mode(gpu.uuid, True)
    assert mig.mode(gpu.uuid) == (True, True)
    mig.set_mode(gpu.uuid, False)
    assert mig.mode(gpu.uuid) == (False, False)


def test_instances_are_made_listed_and_destroyed(lab: Lab) -> None:
    mig, gpu = lab
    mig.set_mode(gpu.uuid, True)
    half = mig.create_gpu_instance(gpu.uuid, HALF, at(4, 4))
    one = mig.create_gpu_instance(gpu.uuid, ONE, at(0, 1))
    made = mig.create_compute_instance(gpu.uuid, half, 3)
    assert made.slices == 3
    assert made.uuid.startswith("MIG-")
    found = mig.instances(gpu.uuid)
    assert [(each.id, each.profile_id, each.profile_name, each.placement) for each in found] == [
        (one, ONE, "1g.10gb", at(0, 1)),
        (half, HALF, "3g.40gb", at(4, 4)),
    ]
    assert [each.compute_instances for each in found] == [(), (made,)]
    destroy(mig, gpu.uuid, found[1])
    destroy(mig, gpu.uuid, found[1])
    mig.destroy_gpu_instance(gpu.uuid, one)
    assert mig.instances(gpu.uuid) == ()


def test_an_id_is_used_again_and_a_uuid_is_not(lab: Lab) -> None:
    mig, gpu = lab
    mig.set_mode(gpu.uuid, True)
    ids, uuids = set(), set()
    for _ in range(3):
        made = mig.create_gpu_instance(gpu.uuid, HALF, at(4, 4))
        ids.add(made)
        uuids.add(mig.create_compute_instance(gpu.uuid, made, 3).uuid)
        destroy(mig, gpu.uuid, mig.instances(gpu.uuid)[0])
    assert len(ids) == 1
    assert len(uuids) == 3


@pytest.mark.parametrize(("profile", "where"), [(HALF, at(0, 4)), (FOUR, at(0, 4)), (WHOLE, at(0, 8)), (ONE, at(2, 1))])
def test_an_occupied_placement(lab: Lab, profile: int, where: MigPlacement) -> None:
    mig, gpu = lab
    mig.set_mode(gpu.uuid, True)
    mig.create_gpu_instance(gpu.uuid, FOUR, at(0, 4))
    with pytest.raises(PlacementOccupied):
        mig.create_gpu_instance(gpu.uuid, profile, where)
    assert len(mig.instances(gpu.uuid)) == 1


def test_one_instance_has_the_media_extensions(lab: Lab) -> None:
    mig, gpu = lab
    mig.set_mode(gpu.uuid, True)
    mig.create_gpu_instance(gpu.uuid, ME, at(0, 1))
    with pytest.raises(PlacementOccupied):
        mig.create_gpu_instance(gpu.uuid, ME, at(3, 1))


@pytest.mark.parametrize(("profile", "where"), [(77, at(0, 1)), (HALF, at(1, 4))])
def test_what_does_not_exist(lab: Lab, profile: int, where: MigPlacement) -> None:
    mig, gpu = lab
    mig.set_mode(gpu.uuid, True)
    with pytest.raises(HardwareError):
        mig.create_gpu_instance(gpu.uuid, profile, where)
    assert mig.instances(gpu.uuid) == ()


def test_no_instance_with_mode_off(lab: Lab) -> None:
    mig, gpu = lab
    with pytest.raises(HardwareError):
        mig.create_gpu_instance(gpu.uuid, ONE, at(0, 1))


def test_a_gpu_with_instances_keeps_its_mode(lab: Lab) -> None:
    mig, gpu = lab
    mig.set_mode(gpu.uuid, True)
    made = mig.create_gpu_instance(gpu.uuid, ONE, at(0, 1))
    with pytest.raises(GpuBusy):
        mig.set_mode(gpu.uuid, False)
    assert mig.mode(gpu.uuid) == (True, True)
    mig.destroy_gpu_instance(gpu.uuid, made)
    mig.set_mode(gpu.uuid, False)


def test_a_gpu_instance_with_compute_instances_is_in_use(lab: Lab) -> None:
    mig, gpu = lab
    mig.set_mode(gpu.uuid, True)
    made = mig.create_gpu_instance(gpu.uuid, HALF, at(0, 4))
    compute = mig.create_compute_instance(gpu.uuid, made, 3)
    with pytest.raises(InstanceInUse):
        mig.destroy_gpu_instance(gpu.uuid, made)
    mig.destroy_compute_instance(gpu.uuid, made, compute.id)
    mig.destroy_compute_instance(gpu.uuid, made, compute.id)
    mig.destroy_gpu_instance(gpu.uuid, made)
    mig.destroy_gpu_instance(gpu.uuid, made)


def test_parts_of_a_gpu_instance_lie_side_by_side(lab: Lab) -> None:
    mig, gpu = lab
    mig.set_mode(gpu.uuid, True)
    made = mig.create_gpu_instance(gpu.uuid, HALF, at(0, 4))
    parts = [mig.create_compute_instance(gpu.uuid, made, 1) for _ in range(3)]
    assert [(each.start, each.slices) for each in parts] == [(0, 1), (1, 1), (2, 1)]
    with pytest.raises(PlacementOccupied):
        mig.create_compute_instance(gpu.uuid, made, 1)
    (found,) = mig.instances(gpu.uuid)
    assert sorted(found.compute_instances, key=lambda each: each.start) == parts


def test_an_unknown_gpu(lab: Lab) -> None:
    mig, _gpu = lab
    with pytest.raises(HardwareError):
        mig.mode("GPU-none")
