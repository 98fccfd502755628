"""Devices whose MPS daemon is dead or stuck are tainted, and the word for it goes through the inventory."""

from __future__ import annotations

from dataclasses import replace

from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.fence_taints import with_fence_taints
from dra_driver.devices.model import AllocatableDevice, DeviceSet, Taint
from dra_driver.devices.policy import DevicePolicy
from dra_driver.hardware.inventory import machine_from_status, machine_to_status
from dra_driver.hardware.model import Machine, UnhealthyMps
from tests.devices import builders
from tests.devices.recorded import recorded

TAINT = Taint("gpu.nvidia.com/mps-unhealthy", "", "NoSchedule")
MIG = "gpu-1-mig-1g10gb-19-0"


def tainted(machine: Machine) -> set[str]:
    """By way of the inventory, as the controller sees it."""
    there = machine_from_status(machine_to_status(machine))
    assert there == machine
    return {each.name for each in allocatable_devices(there, DevicePolicy(), "n").devices if TAINT in each.taints}


def with_unhealthy(machine: Machine, device: str) -> Machine:
    said = (UnhealthyMps(device, "it was killed"),)
    return replace(
        machine, gpus=tuple(replace(gpu, mps_unhealthy=said) if gpu.minor == 1 else gpu for gpu in machine.gpus)
    )


def test_the_daemon_of_a_whole_gpu_concerns_all_that_is_on_it() -> None:
    machine = recorded("h100-sxm5-80gb")
    assert tainted(machine) == set()
    names = {each.name for each in allocatable_devices(machine, DevicePolicy(), "n").devices}
    on_it = {name for name in names if name == "gpu-1" or name.startswith("gpu-1-")}
    assert tainted(with_unhealthy(machine, "gpu-1")) == on_it
    assert len(on_it) > 20


def test_the_daemon_of_a_mig_device_concerns_only_this() -> None:
    assert tainted(with_unhealthy(recorded("h100-sxm5-80gb"), MIG)) == {MIG}


def test_a_replica_is_tainted_with_the_device_that_it_stands_for() -> None:
    devices = DeviceSet(tuple(replace(_device(), name=name) for name in (f"{MIG}-replica-0", "gpu-1-mig-1g10gb-19-1")))
    gpu = with_unhealthy(recorded("h100-sxm5-80gb"), MIG).gpus[1]
    first, second = with_fence_taints(devices, gpu, DevicePolicy()).devices
    assert (first.taints, second.taints) == ((TAINT,), ())


def _device() -> AllocatableDevice:
    return next(iter(allocatable_devices(recorded("h100-sxm5-80gb"), DevicePolicy(), "n").devices))


def test_a_fence_that_has_gone_keeps_newcomers_away() -> None:
    one = builders.machine(builders.gpu(0, mig=None, unfenced=("gpu-0",)))
    assert machine_from_status(machine_to_status(one)) == one
    (device,) = allocatable_devices(one, DevicePolicy(driver="gpu.example.com")).devices
    assert [(taint.key, taint.effect) for taint in device.taints] == [("gpu.example.com/fence-gone", "NoSchedule")]
