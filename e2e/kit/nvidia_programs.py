"""What NVIDIA's device plugin and GPU Feature Discovery must say of a machine, from what else is known of it. Pure.

Sources: k8s-device-plugin v0.19, internal/rm/device_map.go and api/config/v1/resources.go for resources, internal/lm
for labels.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from dra_driver.devices.mig_devices import existing_profile
from dra_driver.hardware.model import ComputeInstance, Gpu, Machine, MigProfile

DOMAIN = "nvidia.com"
GPU_RESOURCE = f"{DOMAIN}/gpu"
_MIB = 2**20
_LABEL = re.compile(r"nvidia\.com/[^=]+=.*")


class Strategy(StrEnum):
    """How MIG devices are offered: not at all, as ``nvidia.com/gpu``, as a resource for each profile."""

    NONE = "none"
    SINGLE = "single"
    MIXED = "mixed"


def resources(machine: Machine, strategy: Strategy) -> dict[str, set[str]]:
    """UUIDs of the devices of each resource. Only sound layouts: single wants the same one on every GPU."""
    found: dict[str, set[str]] = {}
    for gpu in machine.gpus:
        if gpu.mig is None or not gpu.mig.enabled or strategy is Strategy.NONE:
            found.setdefault(GPU_RESOURCE, set()).add(gpu.uuid)
            continue
        for device in _mig_devices(gpu):
            found.setdefault(device.resource(strategy), set()).add(device.compute.uuid)
    return found


def labels(machine: Machine, strategy: Strategy) -> dict[str, str]:
    """Of a machine with GPUs of one product, without the time, and where no file says what the machine is."""
    gpu = machine.gpus[0]
    partitioned = [gpu for gpu in machine.gpus if gpu.mig and gpu.mig.enabled]
    found = {
        **_versions(machine),
        "mig.capable": _flag(any(gpu.mig for gpu in machine.gpus)),
        "mps.capable": _flag(False),
        "vgpu.present": _flag(False),
        "gpu.machine": "unknown",
        "gpu.mode": "compute",
        **_whole(gpu, len(machine.gpus), offered=len(partitioned) < len(machine.gpus)),
    }
    if strategy is not Strategy.NONE:
        found["mig.strategy"] = strategy
        devices = [device for gpu in partitioned for device in _mig_devices(gpu)]
        counts = Counter(device.resource(strategy) for device in devices)
        for device in devices:
            resource = device.resource(strategy)
            prefix = resource.removeprefix(f"{DOMAIN}/")
            found |= {f"{prefix}.{name}": value for name, value in _part(device, counts[resource]).items()}
    return {f"{DOMAIN}/{name}": value for name, value in found.items()}


def parse_labels(output: str) -> dict[str, str]:
    """The labels among the lines that GPU Feature Discovery writes."""
    lines = (line.strip() for line in output.splitlines())
    pairs = (line.partition("=") for line in lines if _LABEL.fullmatch(line))
    return {name: value for name, _, value in pairs}


@dataclass(frozen=True, slots=True)
class _MigDevice:
    gpu: Gpu
    profile: MigProfile  # of its GPU instance
    compute: ComputeInstance

    @property
    def name(self) -> str:
        """``1c.4g.20gb`` where it has one of four compute slices."""
        return existing_profile(self.profile, self.compute)

    def resource(self, strategy: Strategy) -> str:
        # A resource's name has no plus sign.
        return GPU_RESOURCE if strategy is Strategy.SINGLE else f"{DOMAIN}/mig-{self.name.replace('+', '.')}"


def _mig_devices(gpu: Gpu) -> Iterator[_MigDevice]:
    for instance in gpu.mig.instances if gpu.mig else ():
        profile = gpu.mig.profile(instance.profile_id) if gpu.mig else None
        assert profile is not None, f"{gpu.uuid} has no profile {instance.profile_id}"
        for compute in instance.compute_instances:
            yield _MigDevice(gpu, profile, compute)


def _versions(machine: Machine) -> dict[str, str]:
    driver = machine.driver_version.split(".")
    major, minor = str(machine.cuda_driver_version // 1000), str(machine.cuda_driver_version % 1000 // 10)
    revision = driver[2] if len(driver) > 2 else ""
    return {
        "cuda.driver.major": driver[0],
        "cuda.driver.minor": driver[1],
        "cuda.driver.rev": revision,
        "cuda.driver-version.major": driver[0],
        "cuda.driver-version.minor": driver[1],
        "cuda.driver-version.revision": revision,
        "cuda.driver-version.full": machine.driver_version,
        "cuda.runtime.major": major,
        "cuda.runtime.minor": minor,
        "cuda.runtime-version.major": major,
        "cuda.runtime-version.minor": minor,
        "cuda.runtime-version.full": f"{major}.{minor}",
    }


def _whole(gpu: Gpu, count: int, *, offered: bool) -> dict[str, str]:
    major, _, minor = gpu.cuda_compute_capability.partition(".")
    found = {
        "gpu.product": _product(gpu.product_name),
        "gpu.count": str(count),
        "gpu.replicas": "1" if offered else "0",
        "gpu.sharing-strategy": "none",
        "gpu.family": gpu.architecture.lower().replace(" ", "-"),
        "gpu.compute.major": major,
        "gpu.compute.minor": minor,
    }
    # Where memory is the system's, NVML has no total, and there is no label.
    return found if gpu.memory_bytes is None else {**found, "gpu.memory": str(gpu.memory_bytes // _MIB)}


def _part(device: _MigDevice, count: int) -> dict[str, str]:
    profile, slices = device.profile, device.compute.slices
    return {
        "product": f"{_product(device.gpu.product_name)}-MIG-{_product(device.name)}",
        "count": str(count),
        "replicas": "1",
        "sharing-strategy": "none",
        "memory": str(profile.memory_mib),
        "multiprocessors": str(profile.multiprocessors * slices // profile.slice_count),
        "slices.gi": str(profile.slice_count),
        "slices.ci": str(slices),
        "engines.copy": str(profile.copy_engines),
        "engines.decoder": str(profile.decoders),
        "engines.encoder": str(profile.encoders),
        "engines.jpeg": str(profile.jpeg_engines),
        "engines.ofa": str(profile.ofa_engines),
    }


def _product(name: str) -> str:
    """As a label's value may be."""
    return "-".join(re.sub(r"[^A-Za-z0-9-_. ]", "", name).split())


def _flag(value: bool) -> str:
    return str(value).lower()
