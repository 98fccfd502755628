"""Devices read back from slices are the devices that were written."""

from __future__ import annotations

from controller.published import decode_device, published_devices
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
from dra_driver.hardware.model import Machine
from dra_driver.quantity import Quantity
from dra_driver.slices.encode import encode_device, encode_slice
from dra_driver.slices.layout import PoolOwner, SliceSpec

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


def test_round_trip_of_a_real_machine(a100: Machine) -> None:
    device_set = allocatable_devices(a100, DevicePolicy(additional_attributes=True))
    spec = SliceSpec(0, device_set.devices)
    encoded = encode_slice(spec, OWNER, generation=1, count=1)
    encoded["metadata"]["name"] = "00000-x"
    assert published_devices([encoded]) == device_set


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
