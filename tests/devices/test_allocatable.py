"""What a node offers, and in which order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.model import Capacity, DeviceKind, DeviceSet, Version
from dra_driver.devices.ordering import order_gpus
from dra_driver.devices.policy import DevicePolicy
from dra_driver.errors import HardwareError
from dra_driver.hardware.model import MigState
from dra_driver.quantity import Quantity
from tests.devices.builders import GPU, gpu, machine

POLICY = DevicePolicy()


def test_a_whole_gpu_has_nvidias_attributes_and_types() -> None:
    (device,) = allocatable_devices(machine(GPU), POLICY).devices
    assert (device.name, device.kind, device.gpu_uuid) == ("gpu-0", DeviceKind.GPU, GPU.uuid)
    assert device.attributes == {
        "type": "gpu",
        "uuid": GPU.uuid,
        "productName": "NVIDIA H100 80GB HBM3",
        "brand": "Nvidia",
        "architecture": "Hopper",
        "cudaComputeCapability": Version("9.0.0"),
        "driverVersion": Version("580.105.8"),
        "cudaDriverVersion": Version("13.0.0"),
        "addressingMode": "None",
        "resource.kubernetes.io/pciBusID": "0000:1a:00.0",
        "resource.kubernetes.io/pcieRoot": "pci0000:15",
        "resource.kubernetes.io/numaNode": 0,
    }
    assert device.capacity == {"memory": Capacity(Quantity.parse("80Gi"))}
    assert str(device.capacity["memory"].value) == "80Gi"
    assert not device.consumes
    assert not device.taints
    assert not device.allow_multiple_allocations


def test_what_the_hardware_does_not_tell_is_absent() -> None:
    bare = gpu(0, memory_bytes=None, addressing_mode=None, pcie_root=None, numa_node=None)
    (device,) = allocatable_devices(machine(bare), POLICY).devices
    assert device.capacity == {}
    absent = {"addressingMode", "resource.kubernetes.io/pcieRoot", "resource.kubernetes.io/numaNode"}
    assert not absent & device.attributes.keys()


def test_long_names_are_clipped() -> None:
    (device,) = allocatable_devices(machine(gpu(0, product_name="NVIDIA é" + "x" * 100)), POLICY).devices
    name = device.attributes["productName"]
    assert isinstance(name, str)
    assert len(name.encode()) == 64


def test_additional_attributes_are_asked_for() -> None:
    devices = allocatable_devices(machine(gpu(0), gpu(1, mig=None)), DevicePolicy(additional_attributes=True)).devices
    assert [(device.attributes["minor"], device.attributes["migCapable"]) for device in devices] == [
        (0, True),
        (1, False),
    ]


def test_a_gpu_in_mig_mode_is_not_offered_as_a_whole() -> None:
    partitioned = gpu(0, mig=MigState(enabled=True, pending=True))
    soon = gpu(1, mig=MigState(enabled=False, pending=True))
    assert [device.name for device in allocatable_devices(machine(partitioned, soon), POLICY).devices] == ["gpu-1"]


def test_no_gpus_is_an_empty_set() -> None:
    assert allocatable_devices(machine(), POLICY) == DeviceSet()


def test_two_gpus_with_one_minor_are_refused() -> None:
    with pytest.raises(HardwareError, match=r"minor number 3: GPU-.*3, GPU-other"):
        allocatable_devices(machine(gpu(3), gpu(3, uuid="GPU-other")), POLICY)


def test_order_is_that_of_the_numbers_in_the_bus_id() -> None:
    ids = ["garbage", "10000:01:00.0", "0001:00:00.0", "0000:9a:00.0", "0000:1a:00.1", "0000:1A:00.0"]
    for permutation in itertools.islice(itertools.permutations(ids), 0, None, 37):
        ordered = order_gpus(gpu(number, pci_bus_id=bus_id) for number, bus_id in enumerate(permutation))
        assert [item.pci_bus_id for item in ordered] == list(reversed(ids))


@given(st.permutations(range(12)))
def test_order_of_discovery_does_not_matter(order: list[int]) -> None:
    shuffled = allocatable_devices(machine(*(gpu(number) for number in order)), POLICY)
    assert [device.name for device in shuffled.devices] == [f"gpu-{number}" for number in range(12)]
