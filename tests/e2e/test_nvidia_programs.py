"""What NVIDIA's programs must say of a machine, and what a kubelet says of device plugins."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dra_driver.hardware.model import ComputeInstance, Gpu, GpuInstance, Machine, MigPlacement, MigProfile, MigState
from e2e.kit.device_plugins import parse
from e2e.kit.nvidia_programs import Strategy, labels, parse_labels, resources

_LARGE = MigProfile("3g.40gb", 9, 2, 3, 2, 40448, 60, 3, 3, 0, 3, 0, (MigPlacement(0, 4), MigPlacement(4, 4)))
_MEDIA = MigProfile("1g.10gb+me", 20, 7, 1, 1, 9984, 16, 1, 1, 0, 1, 1, (MigPlacement(0, 1),))


def gpu(minor: int, *instances: GpuInstance) -> Gpu:
    return Gpu(
        index=minor,
        minor=minor,
        uuid=f"GPU-{minor}",
        product_name="NVIDIA H100 80GB HBM3",
        brand="Nvidia",
        architecture="Hopper",
        cuda_compute_capability="9.0",
        pci_bus_id=f"0000:0{minor}:00.0",
        memory_bytes=81559 * 2**20,
        mig=MigState(bool(instances), bool(instances), (_LARGE, _MEDIA), instances),
    )


def instance(number: int, profile: MigProfile, start: int, *computes: ComputeInstance) -> GpuInstance:
    return GpuInstance(number, profile.id, profile.name, MigPlacement(start, 4), computes)


def machine(*gpus: Gpu) -> Machine:
    return Machine("580.105.08", 13000, gpus)


def halves(minor: int) -> Sequence[GpuInstance]:
    """Two of the same on a GPU."""
    computes = [ComputeInstance(0, f"MIG-{minor}-{number}", 3) for number in (1, 2)]
    return [instance(number, _LARGE, 4 * number, compute) for number, compute in enumerate(computes)]


MIXED = machine(
    gpu(0),
    gpu(
        1,
        instance(1, _MEDIA, 4, ComputeInstance(0, "MIG-media", 1)),
        instance(2, _LARGE, 0, ComputeInstance(0, "MIG-part", 1), ComputeInstance(1, "MIG-rest", 1)),
    ),
)
SINGLE = machine(gpu(0, *halves(0)), gpu(1, *halves(1)))


def test_resources_by_strategy() -> None:
    assert resources(MIXED, Strategy.NONE) == {"nvidia.com/gpu": {"GPU-0", "GPU-1"}}
    assert resources(MIXED, Strategy.MIXED) == {
        "nvidia.com/gpu": {"GPU-0"},
        "nvidia.com/mig-1g.10gb.me": {"MIG-media"},
        "nvidia.com/mig-1c.3g.40gb": {"MIG-part", "MIG-rest"},
    }
    assert resources(SINGLE, Strategy.SINGLE) == {"nvidia.com/gpu": {"MIG-0-1", "MIG-0-2", "MIG-1-1", "MIG-1-2"}}


def test_labels_of_whole_gpus() -> None:
    found = labels(machine(gpu(0), gpu(1)), Strategy.NONE)
    assert found["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3"
    assert found["nvidia.com/gpu.count"] == "2"
    assert found["nvidia.com/gpu.memory"] == "81559"
    assert found["nvidia.com/cuda.driver-version.revision"] == "08"
    assert found["nvidia.com/cuda.runtime-version.full"] == "13.0"
    assert found["nvidia.com/mig.capable"] == "true"
    assert "nvidia.com/mig.strategy" not in found


def test_labels_of_mig_devices() -> None:
    found = labels(MIXED, Strategy.MIXED)
    assert found["nvidia.com/gpu.count"] == "2"
    assert found["nvidia.com/gpu.replicas"] == "1"
    assert found["nvidia.com/mig-1g.10gb.me.product"] == "NVIDIA-H100-80GB-HBM3-MIG-1g.10gbme"
    assert found["nvidia.com/mig-1g.10gb.me.engines.ofa"] == "1"
    assert found["nvidia.com/mig-1c.3g.40gb.count"] == "2"
    assert found["nvidia.com/mig-1c.3g.40gb.multiprocessors"] == "20"
    found = labels(SINGLE, Strategy.SINGLE)
    assert found["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb"
    assert found["nvidia.com/gpu.count"] == "4"
    assert found["nvidia.com/gpu.memory"] == "40448"
    assert found["nvidia.com/mig.strategy"] == "single"
    assert labels(SINGLE, Strategy.NONE)["nvidia.com/gpu.replicas"] == "0", "no whole GPU can be had"


def test_labels_among_other_lines() -> None:
    output = "I1130 labels.go] Creating\nnvidia.com/gpu.count=8\nnvidia.com/cuda.driver.rev=\n nvidia.com/gpu\n"
    assert parse_labels(output) == {"nvidia.com/gpu.count": "8", "nvidia.com/cuda.driver.rev": ""}


def test_devices_that_a_kubelet_has_registered() -> None:
    registered = {"nvidia.com/gpu": ["GPU-1", "GPU-2"], "nvidia.com/mig-1g.10gb": None}
    content = {"Data": {"PodDeviceEntries": None, "RegisteredDevices": registered}, "Checksum": 1}
    assert parse(json.dumps(content)) == {"nvidia.com/gpu": {"GPU-1", "GPU-2"}, "nvidia.com/mig-1g.10gb": set()}
    assert parse('{"Data":{"PodDeviceEntries":null,"RegisteredDevices":null},"Checksum":1}') == {}
    assert parse("\n") == {}
