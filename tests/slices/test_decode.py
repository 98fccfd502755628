"""Devices read back from slices are the devices that were written."""

from __future__ import annotations

import pytest

from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.model import (
    AllocatableDevice,
    Capacity,
    CounterConsumption,
    CounterSet,
    DeviceKind,
    RequestPolicy,
    Taint,
    Version,
)
from dra_driver.devices.policy import DevicePolicy
from dra_driver.quantity import Quantity
from dra_driver.simulation.hardware.description import recorded_machines
from dra_driver.slices.cutting import PoolOwner, desired_slices
from dra_driver.slices.decode import decode_device, driver_of, generation_of, pool_of, published_devices
from dra_driver.slices.encode import encode_device, encode_slice
from tests.devices.recorded import recorded
from tests.slices.builders import FEATURES

OWNER = PoolOwner("gpu.nvidia.com", "n1", "uid")
EVERYTHING = AllocatableDevice(
    name="gpu-0-mig",
    kind=DeviceKind.MIG,
    gpu_uuid="GPU-parent",
    attributes={"type": "mig", "uuid": "MIG-1", "parentUUID": "GPU-parent", "n": 3, "yes": True, "v": Version("1.2.3")},
    capacity={
        "memory": Capacity(
            Quantity.parse("10Gi"),
            RequestPolicy(*(Quantity.parse(text) for text in ("1Gi", "1Gi", "10Gi", "1Gi"))),
        )
    },
    consumes=(CounterConsumption("gpu-0", {"slices": Quantity.of(1)}),),
    taints=(Taint("a/b", "v", "NoSchedule", "2026-11-23T08:03:30Z"), Taint("c", "", "NoExecute")),
    allow_multiple_allocations=True,
)


def test_round_trip_of_every_field() -> None:
    assert decode_device(encode_device(EVERYTHING)) == EVERYTHING


@pytest.mark.parametrize("machine", recorded_machines())
def test_a_pool_read_back_is_what_the_machine_offers(machine: str) -> None:
    offered = allocatable_devices(recorded(machine), DevicePolicy(additional_attributes=True))
    specs = desired_slices(offered, OWNER, FEATURES)
    slices = [encode_slice(spec, OWNER, generation=3, count=len(specs)) for spec in specs]
    for each in slices:
        each["metadata"]["name"] = f"{each['metadata']['generateName']}x"
    assert published_devices(reversed(slices)) == offered
    assert {(driver_of(each), pool_of(each), generation_of(each)) for each in slices} == {("gpu.nvidia.com", "n1", 3)}


def test_a_slice_that_says_nothing_belongs_nowhere() -> None:
    for nothing in ({}, {"spec": None}, {"spec": {"pool": None}}):
        assert (driver_of(nothing), pool_of(nothing), generation_of(nothing)) == ("", "", 0)


def test_only_the_newest_generation_counts_in_the_order_of_names() -> None:
    def slice_of(name: str, generation: int, *devices: str) -> dict[str, object]:
        return {
            "metadata": {"name": name},
            "spec": {"pool": {"generation": generation}, "devices": [{"name": device} for device in devices]},
        }

    counters = {"metadata": {"name": "0"}, "spec": {"pool": {"generation": 2}, "sharedCounters": [{"name": "c"}]}}
    found = published_devices([slice_of("2", 2, "c", "b"), slice_of("3", 1, "old"), slice_of("1", 2, "a"), counters])
    assert [device.name for device in found.devices] == ["a", "c", "b"]
    assert found.counter_sets == (CounterSet("c", {}),)


def test_what_the_model_cannot_hold_is_left_out() -> None:
    raw = {"name": "x", "attributes": {"list": {"strings": ["a"]}, "type": {"string": "tpu"}}}
    device = decode_device(raw)
    assert device.attributes == {"type": "tpu"}
    assert device.kind is DeviceKind.GPU
