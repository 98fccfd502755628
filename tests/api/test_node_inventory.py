"""NodeInventory: small on the wire, and read leniently."""

from __future__ import annotations

import json
from typing import Any

from api.node_inventory import (
    ComputeInstanceEntry,
    Condition,
    GpuEntry,
    MachineStatus,
    MigInstanceEntry,
    NodeInventory,
    NodeInventorySpec,
    NodeInventoryStatus,
    Product,
    Registration,
)

# H100 80GB SXM as nvidia-smi mig -lgip prints it: name, id, instances, MiB, SMs, engines (CE DEC ENC JPEG OFA), size, starts.
H100_PROFILES: list[tuple[str, int, int, int, int, list[int], int, list[int]]] = [
    ("1g.10gb", 19, 7, 9984, 16, [1, 1, 0, 1, 0], 1, [0, 1, 2, 3, 4, 5, 6]),
    ("1g.10gb+me", 20, 1, 9984, 16, [1, 1, 0, 1, 1], 1, [0, 1, 2, 3, 4, 5, 6]),
    ("1g.20gb", 15, 4, 20096, 26, [1, 1, 0, 1, 0], 2, [0, 2, 4, 6]),
    ("2g.20gb", 14, 3, 20096, 32, [2, 2, 0, 2, 0], 2, [0, 2, 4]),
    ("3g.40gb", 9, 2, 40448, 60, [3, 3, 0, 3, 0], 4, [0, 4]),
    ("4g.40gb", 5, 1, 40448, 64, [4, 4, 0, 4, 0], 4, [0]),
    ("7g.80gb", 0, 1, 81152, 132, [8, 7, 0, 7, 1], 8, [0]),
]


def profile(
    index: int,
    name: str,
    id_: int,
    instances: int,
    mib: int,
    sms: int,
    engines: list[int],
    size: int,
    starts: list[int],
) -> dict[str, Any]:
    return {
        "name": name,
        "id": id_,
        "enumIndex": index,
        "slices": int(name[0]),
        "instances": instances,
        "memoryMiB": mib,
        "multiprocessors": sms,
        "engines": engines,
        "p2p": True,
        "placements": {"size": size, "starts": starts},
    }


def gpu(index: int, instances: int) -> GpuEntry:
    parts = [
        MigInstanceEntry(
            id=7 + number,
            compute=[
                ComputeInstanceEntry(id=0, uuid=f"MIG-4cf8db2d-06c0-7d70-1a51-e59b25b2c{index}{number:02}", slices=1)
            ],
            profile=19,
            profile_name="1g.10gb",
            start=number,
            size=1,
        )
        for number in range(instances)
    ]
    return GpuEntry.model_validate(
        {
            "index": index,
            "minor": index,
            "uuid": f"GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16{index}",
            "product": 0,
            "pciBusID": f"0000:{index:02x}:00.0",
            "pcieRoot": f"pci0000:{index:02x}",
            "numaNode": index // 4,
            "mig": "Enabled",
            "migInstances": parts or None,
        }
    )


def inventory(instances: int = 0) -> NodeInventory:
    product = Product.model_validate(
        {
            "name": "NVIDIA H100 80GB HBM3",
            "brand": "Nvidia",
            "architecture": "Hopper",
            "cudaComputeCapability": "9.0",
            "memoryBytes": 85520809984,
            "addressingMode": "HMM",
            "migProfiles": [profile(index, *entry) for index, entry in enumerate(H100_PROFILES)],
        }
    )
    machine = MachineStatus(
        driver_version="580.105.08",
        cuda_driver_version=13000,
        products=[product],
        gpus=[gpu(index, instances) for index in range(8)],
    )
    conditions = [
        Condition(
            type=kind,
            status="True",
            reason="AsExpected",
            message="all 8 GPUs answered",
            last_transition_time="2026-11-23T08:03:30Z",
        )
        for kind in ("HardwareReady", "Registered")
    ]
    return NodeInventory(
        metadata={
            "name": "gpu-node-0001.example.com",
            "uid": "7b0e4cf8-06c0-4d70-9a51-e59b25b2c161",
            "resourceVersion": "123456789",
            "generation": 12,
            "creationTimestamp": "2026-11-23T08:03:30Z",
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "name": "gpu-node-0001.example.com",
                    "uid": "7b0e4cf8-06c0-4d70-9a51-e59b25b2c162",
                    "controller": True,
                }
            ],
        },
        spec=NodeInventorySpec(challenge="c" * 32),
        status=NodeInventoryStatus(
            machine=machine,
            registration=Registration(
                plugin_instance="7b0e4cf8-06c0-4d70-9a51-e59b25b2c164",
                plugin_version="0.1.0",
                registered=True,
                registrations=3,
            ),
            answer="c" * 32,
            conditions=conditions,
        ),
    )


def compact(value: NodeInventory) -> str:
    return json.dumps(value.to_wire(), separators=(",", ":"))


def test_eight_gpus_with_the_full_mig_table_stay_under_10_kb() -> None:
    assert len(compact(inventory())) < 5_000
    assert len(compact(inventory(instances=4))) < 10_000


def test_written_and_read_again() -> None:
    value = inventory(instances=2)
    assert NodeInventory.model_validate(json.loads(compact(value))) == value


def test_what_an_earlier_version_wrote_is_read() -> None:
    wire = inventory().to_wire()
    wire["status"] |= {"health": [{"uuid": "GPU-a", "state": "Unhealthy", "reason": "Unreadable"}], "features": {}}
    wire["status"]["registration"]["bootID"] = "7b0e4cf8-06c0-4d70-9a51-e59b25b2c163"
    wire["status"]["conditions"][0]["observedGeneration"] = 1
    assert NodeInventory.model_validate(wire) == inventory()


def test_the_number_of_gpus_is_written_for_people() -> None:
    wire = inventory().to_wire()
    assert wire["status"]["machine"]["gpuCount"] == 8
    wire["status"]["machine"]["gpuCount"] = 5
    machine = NodeInventory.model_validate(wire).status.machine
    assert machine is not None
    assert machine.gpu_count == 8


def test_names_on_the_wire() -> None:
    machine = inventory(instances=1).to_wire()["status"]["machine"]
    assert set(machine["products"][0]["migProfiles"][0]) >= {"enumIndex", "memoryMiB", "p2p", "placements"}
    assert set(machine["gpus"][0]) >= {"pciBusID", "pcieRoot", "numaNode", "migInstances"}


def test_fields_of_a_newer_version_pass() -> None:
    wire = inventory().to_wire()
    wire["status"]["later"] = {"x": 1}
    wire["status"]["machine"]["gpus"][0]["later"] = 1
    assert NodeInventory.model_validate(wire) == inventory()


def test_an_empty_object_is_an_inventory() -> None:
    empty = NodeInventory.model_validate({"metadata": {"name": "n"}, "spec": {}})
    assert empty.status.machine is None
    assert empty.spec.challenge is None
