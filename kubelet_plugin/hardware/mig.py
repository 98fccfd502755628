"""What can be done to MIG on a GPU, and how it is right now.

Everything here asks the hardware, also what a snapshot has: a snapshot is seconds old, and what is decided under a
GPU's lock has to be true now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dra_driver.hardware.model import ComputeInstance, GpuInstance, MigPlacement


class MigHardware(Protocol):
    """``dra_driver.hardware.nvml.mig_control.MigControl`` on a node. Thread-safe. All raise ``HardwareError``."""

    def mode(self, gpu_uuid: str) -> tuple[bool, bool]:
        """MIG mode now, and after the next reset of the GPU."""
        ...

    def set_mode(self, gpu_uuid: str, enabled: bool) -> None:
        """Raises MigModePending when only a reset would activate it, GpuBusy when the GPU is in use."""
        ...

    def instances(self, gpu_uuid: str) -> tuple[GpuInstance, ...]:
        """As they are now, by placement; none with MIG mode off."""
        ...

    def instance(self, gpu_uuid: str, profile_id: int, placement: MigPlacement) -> GpuInstance | None:
        """The one of :meth:`instances` with this profile at this placement, for fewer questions to NVML."""
        ...

    def create_gpu_instance(self, gpu_uuid: str, profile_id: int, placement: MigPlacement) -> int:
        """The id of the new GPU instance. Raises PlacementOccupied when NVML answers "insufficient resources"."""
        ...

    def create_compute_instance(self, gpu_uuid: str, gpu_instance_id: int, slices: int) -> ComputeInstance:
        """A compute instance of ``slices`` compute slices."""
        ...

    def destroy_compute_instance(self, gpu_uuid: str, gpu_instance_id: int, compute_instance_id: int) -> None:
        """One that is not there is success. Raises InstanceInUse."""
        ...

    def destroy_gpu_instance(self, gpu_uuid: str, gpu_instance_id: int) -> None:
        """One that is not there is success. Raises InstanceInUse."""
        ...


@dataclass(frozen=True, slots=True)
class MigNow:
    """MIG of one GPU at the moment of asking."""

    enabled: bool
    instances: tuple[GpuInstance, ...] = ()


def look(hardware: MigHardware, gpu_uuid: str) -> MigNow:
    """Raises ``HardwareError``."""
    enabled, _pending = hardware.mode(gpu_uuid)
    return MigNow(enabled, hardware.instances(gpu_uuid) if enabled else ())


def destroy(hardware: MigHardware, gpu_uuid: str, instance: GpuInstance) -> None:
    """An instance with everything in it; what is gone already is success. Raises InstanceInUse."""
    for compute in instance.compute_instances:
        hardware.destroy_compute_instance(gpu_uuid, instance.id, compute.id)
    hardware.destroy_gpu_instance(gpu_uuid, instance.id)


def span(placement: MigPlacement) -> str:
    """``0-3``, or ``6``: the memory slices, as people count them."""
    return f"{placement.start}-{placement.end - 1}" if placement.size > 1 else str(placement.start)


def describe(instance: GpuInstance) -> str:
    """An instance as found, for messages: profile, memory slices, and the UUIDs that tools print."""
    uuids = ", ".join(compute.uuid for compute in instance.compute_instances) or "no compute instance"
    return f"GPU instance {instance.id}, {instance.profile_name} at {span(instance.placement)} ({uuids})"
