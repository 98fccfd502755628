"""What whole GPUs and MIG devices have in common: a GPU by the minor number in a device's name, and its locks."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from dra_driver.hardware.model import Gpu, Machine
from kubelet_plugin.claims.absent import absent_device
from kubelet_plugin.claims.lock_names import admin_lock, gpu_lock
from kubelet_plugin.prepare.kind import Place


@runtime_checkable
class OnGpu(Protocol):
    """A place on a GPU, or all of one, as both kinds find it."""

    @property
    def gpu(self) -> Gpu: ...


def gpu_behind(place: Place) -> Gpu | None:
    """The GPU as it was when ``place`` was found; None where there is none."""
    return place.gpu if isinstance(place, OnGpu) else None


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
