"""Where a MIG device is: its GPU, its profile, its run of memory slices. The name of a device says that and no more.

Ids and UUIDs come and go with the instance; the place is what a claim was allocated, what the journal has, and what is
looked for on the hardware. An instance of that profile at that placement is the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dra_driver.devices.naming import MigName, partial_profile
from dra_driver.hardware.model import ComputeInstance, Gpu, GpuInstance, MigPlacement
from kubelet_plugin.hardware.mig import span


@dataclass(frozen=True, slots=True)
class MigPlace:
    """One MIG device. ``slices``: compute slices of its compute instance, all those of the GPU instance as a rule.

    ``compute_start`` is its first compute slice where several compute instances share the GPU instance, else None.
    """

    gpu_uuid: str
    profile_id: int
    profile_name: str  # "3g.40gb", for people
    placement: MigPlacement
    slices: int
    compute_start: int | None = None

    def __str__(self) -> str:
        part = "" if self.compute_start is None else f" (compute slices from {self.compute_start}, {self.slices} long)"
        return f"{self.profile_name} at {span(self.placement)}{part} of GPU {self.gpu_uuid}"

    def is_of(self, instance: GpuInstance) -> bool:
        """Whether the device is, or would be, in this GPU instance."""
        return instance.profile_id == self.profile_id and instance.placement == self.placement

    def is_compute(self, compute: ComputeInstance) -> bool:
        """Whether the device is this compute instance of its GPU instance."""
        return compute.slices == self.slices and self.compute_start in (None, compute.start)

    def gpu_instance(self, instances: Iterable[GpuInstance]) -> GpuInstance | None:
        return next(filter(self.is_of, instances), None)

    def excludes(self, other: MigPlace) -> bool:
        """Whether only one of the two can exist. Devices that share a GPU instance may differ in compute slices."""
        if self.gpu_uuid != other.gpu_uuid or not self.placement.overlaps(other.placement):
            return False
        if self.profile_id != other.profile_id or self.placement != other.placement:
            return True
        if self.compute_start is None or other.compute_start is None:
            return True
        return MigPlacement(self.compute_start, self.slices).overlaps(MigPlacement(other.compute_start, other.slices))


def place_of(name: MigName, gpu: Gpu) -> MigPlace | None:
    """The place that ``name`` means on ``gpu``; None when the GPU has no such profile or placement.

    The profile's id decides, not its text: a driver update may name a profile anew (its memory in GB is rounded).
    """
    profile = gpu.mig.profile(name.profile_id) if gpu.mig else None
    placement = next((each for each in profile.placements if each.start == name.start), None) if profile else None
    if profile is None or placement is None:
        return None
    compute = name.compute_slices()
    if compute is None:
        return MigPlace(gpu.uuid, profile.id, profile.name, placement, profile.slice_count)
    if compute.stop > profile.slice_count:
        return None
    part = partial_profile(profile.name, len(compute))
    return MigPlace(gpu.uuid, profile.id, part, placement, len(compute), compute.start)


def to_arguments(place: MigPlace) -> Mapping[str, str]:
    """For the journal."""
    arguments = {
        "gpu": place.gpu_uuid,
        "profileID": str(place.profile_id),
        "profile": place.profile_name,
        "start": str(place.placement.start),
        "size": str(place.placement.size),
        "slices": str(place.slices),
    }
    return arguments if place.compute_start is None else {**arguments, "computeStart": str(place.compute_start)}


def from_arguments(arguments: Mapping[str, str]) -> MigPlace:
    """Raises KeyError or ValueError for what :func:`to_arguments` did not make."""
    start = arguments.get("computeStart")
    return MigPlace(
        arguments["gpu"],
        int(arguments["profileID"]),
        arguments["profile"],
        MigPlacement(int(arguments["start"]), int(arguments["size"])),
        int(arguments["slices"]),
        None if start is None else int(start),
    )
