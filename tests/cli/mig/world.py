"""Clusters with partitioned GPUs for the tests of ``gpu-dra mig``: what plugin, controller and scheduler would write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from api.fractions import SharingBackend
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.policy import DevicePolicy
from dra_driver.hardware.inventory import machine_to_status
from dra_driver.hardware.model import ComputeInstance, Gpu, GpuInstance, Machine, MigPlacement
from dra_driver.kube.interface import Obj
from dra_driver.slices.cutting import PoolOwner, desired_slices
from dra_driver.slices.encode import encode_slice
from dra_driver.slices.features import ApiFeatures
from tests.devices.recorded import recorded_gpu

DRIVER = "gpu.nvidia.com"


def gpus(machine: str, count: int, *, enabled: bool = True) -> list[Gpu]:
    """``count`` GPUs of a recorded machine, with minors from 0."""
    first = recorded_gpu(machine, enabled=enabled)
    return [
        replace(first, index=n, minor=n, uuid=f"GPU-{machine}-{n}", pci_bus_id=f"0000:{n + 16:02x}:00.0")
        for n in range(count)
    ]


def instance(gpu: Gpu, profile: str, start: int, *, number: int = 1, foreign: bool = False) -> GpuInstance:
    assert gpu.mig is not None
    found = next(each for each in gpu.mig.profiles if each.name == profile)
    placement = MigPlacement(start, found.placements[0].size)
    compute = (ComputeInstance(0, f"MIG-{gpu.minor}-{number}", found.slice_count),)
    return GpuInstance(number, found.id, profile, placement, compute, foreign)


def having(gpu: Gpu, *instances: GpuInstance) -> Gpu:
    assert gpu.mig is not None
    return replace(gpu, mig=replace(gpu.mig, instances=instances))


def inventory(node: str, machine_gpus: Sequence[Gpu], *conditions: Obj) -> Obj:
    machine = Machine("580.105.08", 13000, tuple(machine_gpus))
    return {
        "apiVersion": "gpu-dra.dev/v1alpha1",
        "kind": "NodeInventory",
        "metadata": {"name": node},
        "spec": {},
        "status": {"machine": machine_to_status(machine).to_wire(), "conditions": list(conditions)},
    }


def slices(
    node: str,
    machine_gpus: Sequence[Gpu],
    policy: DevicePolicy | None = None,
    features: ApiFeatures | None = None,
    fences: Sequence[SharingBackend] = (),
) -> list[Obj]:
    """As the controller publishes them, on 1.35 and later unless ``features`` say otherwise, with names as the server
    makes them. ``fences``: what the node has for fractions."""
    machine = Machine("580.105.08", 13000, tuple(machine_gpus), fences=tuple(fences))
    owner = PoolOwner(DRIVER, node, f"uid-{node}")
    specs = desired_slices(
        allocatable_devices(machine, policy or DevicePolicy(), node), owner, features or ApiFeatures()
    )
    made = [encode_slice(spec, owner, generation=1, count=len(specs)) for spec in specs]
    for entry in made:
        entry["metadata"] = {"name": f"{entry['metadata']['generateName']}abcde"}
    return made


def claim(name: str, node: str, *devices: str, pods: Sequence[str] = (), namespace: str = "ml") -> Obj:
    """A claim that has these devices of a node's pool."""
    results = [{"request": "r", "driver": DRIVER, "pool": node, "device": device} for device in devices]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "mig.nvidia.com"}}]}},
        "status": {
            **({"allocation": {"devices": {"results": results}}} if devices else {}),
            "reservedFor": [{"resource": "pods", "name": pod, "uid": f"uid-{pod}"} for pod in pods],
        },
    }
