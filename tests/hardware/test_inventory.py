from __future__ import annotations

import dataclasses
import json

import pytest

from api.node_inventory import MachineStatus
from dra_driver.hardware.inventory import machine_from_status, machine_to_status
from dra_driver.hardware.model import (
    ComputeInstance,
    Gpu,
    GpuInstance,
    Machine,
    MigPlacement,
    MigProfile,
    MigState,
    RefusedPlacement,
)
from dra_driver.simulation.hardware import recorded_machines
from tests.simulated_node import NodeMaker

LIMIT = 10_000  # bytes of compact JSON for a node of 8 GPUs


def profile(name: str, placements: tuple[MigPlacement, ...]) -> MigProfile:
    return MigProfile(name, 19, 0, 1, 7, 9984, 16, 1, 1, 0, 1, 0, placements, p2p_supported=True)


def gpu(index: int, mig: MigState | None) -> Gpu:
    return Gpu(index, index + 4, f"GPU-{index}", "Card", "Nvidia", "Hopper", "9.0", f"0000:{index:02x}:00.0", mig=mig)


def through_json(machine: Machine) -> Machine:
    wire = json.dumps(machine_to_status(machine).to_wire())
    return machine_from_status(MachineStatus.model_validate(json.loads(wire)))


@pytest.mark.parametrize("name", recorded_machines())
def test_every_recorded_machine_survives_and_stays_small(make_node: NodeMaker, name: str) -> None:
    machine = make_node(name).hardware.read_machine()
    assert through_json(machine) == machine
    assert len(json.dumps(machine_to_status(machine).to_wire(), separators=(",", ":"))) < LIMIT


def test_eight_gpus_full_of_mig_devices_stay_small(make_node: NodeMaker) -> None:
    machine = make_node("b200").hardware.read_machine()
    instances = tuple(
        GpuInstance(
            id=slot + 1,
            profile_id=19,
            profile_name="1g.23gb",
            placement=MigPlacement(slot, 1),
            compute_instances=(ComputeInstance(0, f"MIG-{'0' * 35}{slot}", 1),),
            foreign=slot % 2 == 0,
        )
        for slot in range(7)
    )
    refused = (RefusedPlacement(19, MigPlacement(6, 1), "refused"),)
    full = dataclasses.replace(
        machine,
        gpus=tuple(
            dataclasses.replace(
                each,
                mig=dataclasses.replace(each.mig, enabled=True, pending=True, instances=instances, refused=refused),
            )
            for each in machine.gpus
            if each.mig is not None
        ),
    )
    assert len(full.gpus) == 8
    assert through_json(full) == full
    wire = machine_to_status(full).to_wire()
    wire["gpus"] = [{**entry, "migInstances": None, "migRefused": None} for entry in wire["gpus"]]
    assert len(json.dumps(wire, separators=(",", ":"))) < LIMIT


@pytest.mark.parametrize(
    ("enabled", "pending", "word"),
    [
        (True, True, "Enabled"),
        (False, False, "Disabled"),
        (False, True, "EnabledPending"),
        (True, False, "DisabledPending"),
    ],
)
def test_mig_modes(enabled: bool, pending: bool, word: str) -> None:
    machine = Machine("580.1.1", 13000, (gpu(0, MigState(enabled, pending)),))
    assert machine_to_status(machine).gpus[0].mig == word
    assert through_json(machine) == machine


def test_products_that_differ_only_in_mig_are_two() -> None:
    table = MigState(False, False, (profile("1g.10gb", (MigPlacement(0, 1), MigPlacement(1, 1))),))
    machine = Machine("580.1.1", 13000, (gpu(0, None), gpu(1, table), gpu(2, None), gpu(3, MigState(False, False))))
    assert len(machine_to_status(machine).products) == 3
    assert through_json(machine) == machine


def test_no_gpus() -> None:
    assert through_json(Machine("580.1.1", 13000)) == Machine("580.1.1", 13000)


def test_placements_of_several_sizes_are_refused() -> None:
    broken = MigState(False, False, (profile("1g.10gb", (MigPlacement(0, 1), MigPlacement(1, 2))),))
    with pytest.raises(ValueError, match=r"placements of MIG profile 1g\.10gb differ in size"):
        machine_to_status(Machine("580.1.1", 13000, (gpu(0, broken),)))


def test_a_product_that_is_not_there_is_refused() -> None:
    status = machine_to_status(Machine("580.1.1", 13000, (gpu(0, None),)))
    broken = status.model_copy(update={"products": []})
    with pytest.raises(ValueError, match="names product 0, but there are 0"):
        machine_from_status(broken)
