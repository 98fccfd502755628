"""What device names mean on a GPU, which devices exclude each other, and that the journal keeps a place whole."""

from __future__ import annotations

import pytest

from dra_driver.devices.naming import MigName, mig_name, parse_name
from dra_driver.hardware.model import ComputeInstance, GpuInstance, MigPlacement
from kubelet_plugin.hardware.mig import describe
from kubelet_plugin.kinds.mig.place import MigPlace, from_arguments, place_of, to_arguments
from tests.devices.recorded import mig_machines, recorded

GPU = recorded("h100-sxm5-80gb", 1).gpus[0]


def place(name: str) -> MigPlace | None:
    parsed = parse_name(f"gpu-0-mig-{name}")
    assert isinstance(parsed, MigName)
    return place_of(parsed, GPU)


def test_a_name_means_a_place() -> None:
    assert place("3g40gb-9-4") == MigPlace("GPU-0", 9, "3g.40gb", MigPlacement(4, 4), 3)
    assert place("2c3g40gb-9-4-c1") == MigPlace("GPU-0", 9, "2c.3g.40gb", MigPlacement(4, 4), 2, 1)
    assert str(place("3g40gb-9-4")) == "3g.40gb at 4-7 of GPU GPU-0"


@pytest.mark.parametrize("name", ["3g40gb-9-2", "3g40gb-99-0", "2c3g40gb-9-4-c2", "4c3g40gb-9-4-c0"])
def test_names_of_places_that_the_gpu_lacks(name: str) -> None:
    assert place(name) is None


def test_a_product_without_mig_has_no_place() -> None:
    assert place_of(MigName(0, "1g10gb", 19, 0), recorded("t4").gpus[0]) is None


EXCLUSIONS = [
    ("1g10gb-19-0", "1g10gb-19-1", False),
    ("1g10gb-19-0", "1g10gb-me-20-0", True),
    ("4g40gb-5-0", "1g10gb-19-3", True),
    ("4g40gb-5-0", "3g40gb-9-4", False),
    ("7g80gb-0-0", "1g10gb-19-6", True),
    ("1c3g40gb-9-0-c0", "2c3g40gb-9-0-c1", False),
    ("1c3g40gb-9-0-c1", "2c3g40gb-9-0-c1", True),
    ("1c3g40gb-9-0-c0", "3g40gb-9-0", True),
    ("1c3g40gb-9-0-c0", "4g40gb-5-0", True),
]


@pytest.mark.parametrize(("one", "other", "excludes"), EXCLUSIONS)
def test_which_exclude_each_other(one: str, other: str, excludes: bool) -> None:
    first, second = place(one), place(other)
    assert first is not None
    assert second is not None
    assert first.excludes(second) is excludes
    assert second.excludes(first) is excludes
    assert first.excludes(first)


@pytest.mark.parametrize("machine", mig_machines())
def test_every_placement_of_every_machine_survives_the_journal(machine: str) -> None:
    gpu = recorded(machine, 1).gpus[0]
    assert gpu.mig is not None
    for profile in gpu.mig.profiles:
        for placement in profile.placements:
            name = parse_name(mig_name(0, profile.name, profile.id, placement.start))
            assert isinstance(name, MigName)
            found = place_of(name, gpu)
            assert found is not None
            assert found.is_of(GpuInstance(3, profile.id, profile.name, placement))
            assert from_arguments(to_arguments(found)) == found


def test_instances_are_described_for_people() -> None:
    computes = (ComputeInstance(0, "MIG-a", 1), ComputeInstance(1, "MIG-b", 2))
    assert describe(GpuInstance(2, 9, "3g.40gb", MigPlacement(4, 4), computes)) == (
        "GPU instance 2, 3g.40gb at 4-7 (MIG-a, MIG-b)"
    )
    assert describe(GpuInstance(2, 19, "1g.10gb", MigPlacement(6, 1))) == (
        "GPU instance 2, 1g.10gb at 6 (no compute instance)"
    )
