"""Slices of every machine that is shipped as simulated hardware, from its C interface up, pass the server's rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.mig_policy import MigMode
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.model import DeviceKind
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule, toggles_without_reset
from dra_driver.hardware.inventory import machine_from_status, machine_to_status
from dra_driver.hardware.model import Machine
from dra_driver.hardware.nvml import NvmlHardware
from dra_driver.kube.interface import RESOURCE_SLICES
from dra_driver.simulation import hardware as simulated
from dra_driver.simulation.validation import unknown_fields, validate_create
from dra_driver.slices.cutting import PoolOwner, desired_slices
from dra_driver.slices.diff import plan_writes
from dra_driver.slices.encode import Obj
from dra_driver.slices.features import ApiFeatures

OWNER = PoolOwner("gpu.nvidia.com", "node-0", "11111111-2222-3333-4444-555555555555")
EXPECTED_ATTRIBUTES = {
    "architecture",
    "brand",
    "cudaComputeCapability",
    "cudaDriverVersion",
    "driverVersion",
    "productName",
    "resource.kubernetes.io/pciBusID",
    "type",
    "uuid",
}

EXPECTED_OF_MIG = EXPECTED_ATTRIBUTES - {"uuid"} | {"parentUUID", "profile"}


@pytest.fixture(params=simulated.recorded_machines())
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    state_file = tmp_path / "state.json"
    simulated.create_state(request.param, state_file)
    simulated.install(state_file)
    hardware = NvmlHardware()
    hardware.start()
    try:
        yield hardware.read_machine()
    finally:
        hardware.stop()
        simulated.uninstall()


def forced(mode: MigMode | None, *, additional_attributes: bool) -> DevicePolicy:
    return DevicePolicy(additional_attributes, MigPolicy((MigRule(mode=mode, partial_compute_instances=True),)))


def slices(machine: Machine, policy: DevicePolicy) -> list[Obj]:
    creates = plan_writes(
        desired_slices(allocatable_devices(machine, policy), OWNER, ApiFeatures()), [], owner=OWNER
    ).creates
    for item in creates:
        assert validate_create(RESOURCE_SLICES, item) == []
        assert unknown_fields(RESOURCE_SLICES, item) == []
    return list(creates)


@pytest.mark.parametrize("additional", [False, True])
def test_slices_of_a_recorded_machine_pass_the_servers_rules(machine: Machine, additional: bool) -> None:
    assert machine.gpus
    (only,) = slices(machine, forced(MigMode.OFF, additional_attributes=additional))
    assert len(only["spec"]["devices"]) == len(machine.gpus)
    divisible = [gpu for gpu in machine.gpus if gpu.mig is not None and toggles_without_reset(gpu)]
    for mode in (None, MigMode.DYNAMIC):
        found = slices(machine, forced(mode, additional_attributes=additional))
        assert len(found) == (len(divisible) + 1 if divisible else 1)


def test_devices_of_a_recorded_machine_are_fully_described(machine: Machine) -> None:
    for device in allocatable_devices(machine, DevicePolicy()).devices:
        expected = EXPECTED_ATTRIBUTES if device.kind is DeviceKind.GPU else EXPECTED_OF_MIG
        assert device.attributes.keys() >= expected
        assert "memory" in device.capacity


def test_the_inventory_between_plugin_and_controller_loses_nothing(machine: Machine) -> None:
    travelled = machine_from_status(machine_to_status(machine))
    policy = DevicePolicy(additional_attributes=True)
    assert allocatable_devices(travelled, policy) == allocatable_devices(machine, policy)
