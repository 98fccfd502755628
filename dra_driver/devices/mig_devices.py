"""MIG devices of one GPU: those that a claim may have created (dynamic), and those that exist (static). Pure."""

from __future__ import annotations

from collections.abc import Iterator

from dra_driver.devices.attributes import mig_attributes
from dra_driver.devices.fences import fencing_of
from dra_driver.devices.mig_gpu import MigGpu
from dra_driver.devices.mig_resources import (
    capacities,
    consumption,
    memory_slice_capacities,
    partial_resources,
    profile_resources,
)
from dra_driver.devices.mig_taints import placement_taints
from dra_driver.devices.model import MOST_ENTRIES, AllocatableDevice, DeviceKind
from dra_driver.devices.naming import MigName, mig_name, partial_profile
from dra_driver.devices.packing import placement_order
from dra_driver.devices.shares import shared, sharing_of
from dra_driver.hardware.model import ComputeInstance, Gpu, GpuInstance, MigPlacement, MigProfile


def placement_devices(of: MigGpu) -> Iterator[AllocatableDevice]:
    """One device for each profile and placement, in the order of ``packing``; partial compute instances after them.

    A device has no uuid: the hardware gives one when it is created.
    """
    order = placement_order(of.state.profiles)
    for profile, placement in order:
        yield _creatable(of, profile, placement, profile.slice_count)
    if of.mig.partial_compute_instances:
        for profile, placement in order:
            for slices in partial_sizes(profile):
                yield _creatable(of, profile, placement, slices)


def partial_sizes(profile: MigProfile) -> range:
    """The sizes C, in compute slices, of the partial compute instances that are offered of a profile with G of them.

    C < G and 2C <= G + 1, the rule of NVIDIA's go-nvlib: a larger part leaves less than another of its kind behind, so
    the whole is the better offer. It also keeps the devices of a GPU below the 64 of one slice. Each is offered as the
    only one of its GPU instance, at compute slice 0: its siblings would share the memory slices that it takes, and
    counters can say that a slice is taken, but not that it is taken by the same GPU instance.
    """
    return range(1, min(profile.slice_count - 1, (profile.slice_count + 1) // 2) + 1)


def existing_devices(of: MigGpu) -> Iterator[AllocatableDevice]:
    """The MIG devices that exist, those with the least memory and multiprocessors first.

    So a request by capacity takes the smallest that satisfies it. Partial compute instances of one GPU instance are
    devices of their own, which share its memory and engines. An instance whose profile NVML does not list is left out.
    These alone may be shared: one that claims create is taken away with the claim that made it.
    """
    found = (
        (profile, instance, compute)
        for instance in of.state.instances
        if (profile := of.state.profile(instance.profile_id)) is not None
        for compute in instance.compute_instances
    )
    for profile, instance, compute in sorted(found, key=_least_first):
        yield _existing(of, profile, instance, compute)


def profile_on(gpu: Gpu, name: MigName) -> str | None:
    """The profile that ``name`` stands for on ``gpu``, as it is published; None for one that the GPU does not have."""
    profile = gpu.mig.profile(name.profile_id) if gpu.mig else None
    slices = name.compute_slices()
    if profile is None:
        return None
    return profile.name if slices is None else partial_profile(profile.name, len(slices))


def existing_profile(profile: MigProfile, compute: ComputeInstance) -> str:
    """The profile of the device that ``compute`` is, in a GPU instance of ``profile``."""
    whole = compute.slices == profile.slice_count
    return profile.name if whole else partial_profile(profile.name, compute.slices)


def existing_name(gpu: Gpu, profile: MigProfile, instance: GpuInstance, compute: ComputeInstance) -> str:
    """The name of the device that ``compute`` is."""
    start = None if compute.slices == profile.slice_count else compute.start
    return mig_name(gpu.minor, existing_profile(profile, compute), profile.id, instance.placement.start, start)


def _least_first(found: tuple[MigProfile, GpuInstance, ComputeInstance]) -> tuple[int, ...]:
    profile, instance, compute = found
    return (profile.memory_mib, profile.multiprocessors, compute.slices, instance.placement.start, compute.start)


def _creatable(of: MigGpu, profile: MigProfile, placement: MigPlacement, slices: int) -> AllocatableDevice:
    """A partial compute instance has its part of the multiprocessors but takes the counters of the whole GPU instance:
    nothing else can have what it leaves."""
    whole = slices == profile.slice_count
    name = profile.name if whole else partial_profile(profile.name, slices)
    return AllocatableDevice(
        name=mig_name(of.gpu.minor, name, profile.id, placement.start, None if whole else 0),
        kind=DeviceKind.MIG,
        gpu_uuid=of.gpu.uuid,
        attributes=mig_attributes(of.gpu, of.machine, of.policy, name),
        capacity=capacities(profile_resources(profile) if whole else partial_resources(of.state, profile, slices)),
        consumes=(consumption(of.gpu, profile, placement),),
        taints=placement_taints(of, profile, placement),
    )


def _existing(of: MigGpu, profile: MigProfile, instance: GpuInstance, compute: ComputeInstance) -> AllocatableDevice:
    whole, name = compute.slices == profile.slice_count, existing_profile(profile, compute)
    attributes = mig_attributes(of.gpu, of.machine, of.policy, name, compute.uuid)
    capacity = capacities(profile_resources(profile) if whole else partial_resources(of.state, profile, compute.slices))
    with_slices = {**capacity, **memory_slice_capacities(instance.placement)}
    # An instance of twelve memory slices (RTX PRO 6000) has more to say than the API holds; the slices are for reading.
    fits = len(attributes) + len(with_slices) <= MOST_ENTRIES
    device = AllocatableDevice(
        name=existing_name(of.gpu, profile, instance, compute),
        kind=DeviceKind.MIG,
        gpu_uuid=of.gpu.uuid,
        attributes=attributes,
        capacity=with_slices if fits else capacity,
    )
    fencing = fencing_of(device.name, of.gpu, of.machine, of.policy, mig=True)
    return shared(device, sharing_of(of.policy, of.node, of.gpu, name), fencing)
