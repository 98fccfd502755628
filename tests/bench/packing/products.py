"""Nodes of the benchmark: the devices of one GPU with what they take of its counters, in both published orders.

The counters are NVIDIA's (dra-driver-nvidia-gpu, DynamicMIG): one per memory slice, and multiprocessors, engines and
memory at the largest value of any profile. The whole GPU takes all of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dra_driver.devices.naming import gpu_name, mig_name
from dra_driver.devices.packing import placement_order
from dra_driver.hardware.model import MigPlacement, MigProfile
from tests.devices.recorded import recorded_profiles

WHOLE = "whole"  # the kind of a claim for a GPU that is not cut

Order = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """One device of a GPU. ``kind`` is an index of :attr:`Product.kinds`; ``memory_slices`` a bit mask."""

    name: str  # as published for the GPU with minor 0
    kind: int
    slices: int  # compute slices
    memory_slices: int
    counters: tuple[int, ...]  # multiprocessors, copy engines, decoders, encoders, JPEG, OFA, MiB of memory
    placement: MigPlacement | None  # None for the whole GPU


@dataclass(frozen=True, slots=True)
class Product:
    """One kind of GPU. Orders hold indices of ``devices``."""

    machine: str
    profiles: tuple[MigProfile, ...]
    kinds: tuple[str, ...]  # profile names, then WHOLE
    devices: tuple[Device, ...]
    counters: tuple[int, ...]
    slices: int  # compute slices of one GPU
    memory_slices: int
    alphabetical: Order
    static: Order

    def kind(self, name: str) -> int:
        return self.kinds.index(name)

    def slices_of(self, kind: int) -> int:
        return next(device.slices for device in self.devices if device.kind == kind)

    def is_large(self, kind: int) -> bool:
        """More than a third of a GPU: what fragmentation blocks."""
        return 3 * self.slices_of(kind) > self.slices


def product(machine: str) -> Product:
    """The GPU of a recorded machine."""
    profiles = recorded_profiles(machine)
    capacity = tuple(max(values) for values in zip(*map(_counters, profiles), strict=True))
    units = max(placement.end for profile in profiles for placement in profile.placements)
    slices = max(profile.slice_count for profile in profiles)
    whole = Device(gpu_name(0), len(profiles), slices, (1 << units) - 1, capacity, None)
    devices = (
        *(_device(number, profile, at) for number, profile in enumerate(profiles) for at in profile.placements),
        whole,
    )
    place = {(device.kind, device.placement): index for index, device in enumerate(devices)}
    numbers = {profile.id: number for number, profile in enumerate(profiles)}
    return Product(
        machine=machine,
        profiles=profiles,
        kinds=(*(profile.name for profile in profiles), WHOLE),
        devices=devices,
        counters=capacity,
        slices=slices,
        memory_slices=units,
        alphabetical=tuple(sorted(range(len(devices)), key=lambda index: devices[index].name)),
        static=(
            *(place[numbers[profile.id], placement] for profile, placement in placement_order(profiles)),
            len(devices) - 1,
        ),
    )


def by_kind(order: Order, product: Product) -> tuple[Order, ...]:
    """For each kind its devices in that order: all that a request for one profile sees of it."""
    return tuple(
        tuple(index for index in order if product.devices[index].kind == kind) for kind in range(len(product.kinds))
    )


def _device(kind: int, profile: MigProfile, at: MigPlacement) -> Device:
    mask = (1 << at.end) - (1 << at.start)
    name = mig_name(0, profile.name, profile.id, at.start)
    return Device(name, kind, profile.slice_count, mask, _counters(profile), at)


def _counters(profile: MigProfile) -> tuple[int, ...]:
    engines: Sequence[int] = (profile.decoders, profile.encoders, profile.jpeg_engines, profile.ofa_engines)
    return (profile.multiprocessors, profile.copy_engines, *engines, profile.memory_mib)
