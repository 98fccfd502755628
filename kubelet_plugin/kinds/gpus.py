"""What whole GPUs and MIG devices have in common: a GPU by the minor number in a device's name, and its locks."""

from __future__ import annotations

from collections.abc import Iterable

from dra_driver.devices.naming import MigName, read_name
from dra_driver.hardware.model import ComputeInstance, Gpu, GpuInstance, Machine
from kubelet_plugin.claims.absent import absent_device
from kubelet_plugin.claims.lock_names import admin_lock, gpu_lock
from kubelet_plugin.prepare.kind import Place

_MIB = 1024**2


def gpu_behind(place: Place) -> Gpu | None:
    """The GPU as it was when ``place`` was found; None where there is none."""
    found = getattr(place, "gpu", None)  # both kinds' places have it
    return found if isinstance(found, Gpu) else None


def gpu_with(minor: int, device_name: str, machine: Machine) -> Gpu:
    """The GPU that ``device_name`` belongs to. Raises DeviceNotFound."""
    gpu = machine.with_minor(minor)
    if gpu is None:
        raise absent_device(device_name, machine)
    return gpu


def gpu_locks(gpu_uuid: str) -> tuple[str, ...]:
    """What changes a GPU excludes every other change of it."""
    return (gpu_lock(gpu_uuid),) if gpu_uuid else ()


def looking_locks(gpu: Gpu) -> tuple[str, ...]:
    """Only the state of MIG is asked of the hardware, so a GPU without it can be seen without a lock."""
    return (admin_lock(gpu.uuid),) if gpu.mig is not None else ()


def device_uuid(name: str, gpu: Gpu) -> str | None:
    """Of the device of that published name, as CUDA and NVML have it; None for a MIG device that is not there."""
    found = read_name(name)
    return mig_uuid(found, gpu.mig.instances if gpu.mig else ()) if isinstance(found, MigName) else gpu.uuid


def memory_of(name: str, gpu: Gpu) -> int | None:
    """Bytes of the device of that name on ``gpu``; None where NVML gives no total, or has no such profile."""
    found = read_name(name)
    if not isinstance(found, MigName):
        return gpu.memory_bytes
    profile = gpu.mig.profile(found.profile_id) if gpu.mig else None
    return None if profile is None else profile.memory_mib * _MIB


def place_word(gpu_uuid: str, device: str) -> str:
    """A device in the id of an MPS group: by its GPU, and the place of a MIG device there."""
    gpu, name = gpu_uuid.removeprefix("GPU-"), read_name(device)
    if not isinstance(name, MigName):
        return gpu
    part = "" if name.compute_start is None else f"-c{name.compute_start}"
    return f"{gpu}-{name.profile_id}-{name.start}{part}"


def mig_uuid(name: MigName, instances: Iterable[GpuInstance]) -> str | None:
    """``instances`` of its GPU."""
    return next((found.uuid for found in _compute_instances(name, instances)), None)


def _compute_instances(name: MigName, instances: Iterable[GpuInstance]) -> Iterable[ComputeInstance]:
    part = name.compute_slices()
    for instance in instances:
        if (instance.profile_id, instance.placement.start) == (name.profile_id, name.start):
            for compute in instance.compute_instances:
                if part is None or (compute.start, compute.slices) == (part.start, len(part)):
                    yield compute
