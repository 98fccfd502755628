"""Which MIG instances fit on a GPU: the simulated hardware's own arithmetic. Pure.

GPU instances need free memory slices at a listed start, compute slices that the whole-GPU profile has, and their media
engines: the engines of all instances together are at most those of the whole-GPU profile. That makes one "+me" per GPU
(one OFA engine), and nothing but "-me" next to "+me.all".

Compute instances divide the compute slices of one GPU instance. Which sizes there are follows NVIDIA's listings
(nvidia-smi mig -lcip; go-nvlib has it as a rule): the whole, or at most half of it, rounded up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dra_driver.simulation.hardware.description import ProductDescription, ProfileDescription

Occupied = Sequence[tuple[ProfileDescription, int]]
"""The GPU instances of one GPU: profile and first memory slice."""

COMPUTE_PROFILE_SLICES = {0: 1, 1: 2, 2: 3, 3: 4, 4: 7, 5: 8, 6: 6}
"""Slices by NVML's compute instance profile (NVML_COMPUTE_INSTANCE_PROFILE_*). The variants 7 (1_SLICE_REV1) and 8
(7_SLICE_NVL) exist on no product that is simulated. The hardware's profile id is the same number."""

_ENGINES = ("decoders", "encoders", "jpeg_engines", "ofa_engines")


def whole_gpu(product: ProductDescription) -> ProfileDescription:
    """The profile that takes the whole GPU. ValueError when the product has no MIG."""
    return max(product.mig_profiles or (), key=lambda each: each.placements.size)


def most_mig_devices(product: ProductDescription) -> int:
    """How many MIG devices a GPU can have at once; 0 without MIG."""
    return max((profile.instances for profile in product.mig_profiles or ()), default=0)


def fits(product: ProductDescription, occupied: Occupied, profile: ProfileDescription, start: int) -> bool:
    """Whether an instance of ``profile`` can be made at ``start``, one of its listed starts, now."""
    size = profile.placements.size
    if any(start < other + each.placements.size and other < start + size for each, other in occupied):
        return False
    if sum(each.id == profile.id for each, _ in occupied) >= profile.instances:
        return False
    whole = whole_gpu(product)
    if sum(each.slices for each, _ in occupied) + profile.slices > whole.slices:
        return False
    return all(
        sum(getattr(each, engine) for each, _ in occupied) + getattr(profile, engine) <= getattr(whole, engine)
        for engine in _ENGINES
    )


def chosen_start(product: ProductDescription, occupied: Occupied, profile: ProfileDescription) -> int | None:
    """Where NVML puts an instance whose place is left to it: the upper half first, as listings of A100 show."""
    half = whole_gpu(product).placements.size // 2
    starts = sorted(profile.placements.starts, key=lambda start: (start < half, start))
    return next((start for start in starts if fits(product, occupied, profile, start)), None)


def remaining(product: ProductDescription, occupied: Occupied, profile: ProfileDescription) -> int:
    """How many more instances of ``profile`` can be made."""
    taken, count = list(occupied), 0
    while (start := chosen_start(product, taken, profile)) is not None:
        taken.append((profile, start))
        count += 1
    return count


def free_instance_id(product: ProductDescription, profile: ProfileDescription, taken: Iterable[int]) -> int:
    """The lowest free id for a GPU instance of ``profile``.

    Ids are numbered by size, as on hardware: 0 the whole GPU, 1 and 2 halves, 3 to 6 quarters, 7 to 14 eighths. They
    say nothing about the place.
    """
    used = set(taken)
    parts = whole_gpu(product).placements.size // profile.placements.size
    first = (1 << (parts - 1).bit_length()) - 1
    candidate = first
    while candidate in used:
        candidate += 1
    return candidate


def compute_sizes(slices: int) -> Iterator[int]:
    """Slices that a compute instance in a GPU instance of ``slices`` may have, ascending."""
    for size in sorted(COMPUTE_PROFILE_SLICES.values()):
        if size == slices or 2 * size <= slices + 1:
            yield size


def compute_starts(slices: int, size: int) -> range:
    """Where a compute instance of ``size`` may start in a GPU instance of ``slices``."""
    return range(0, slices - size + 1, size)


def multiprocessors(product: ProductDescription, profile: ProfileDescription, slices: int) -> int:
    """Of a compute instance of ``slices``: all of its GPU instance's, or a multiple of the smallest profile's."""
    if slices == profile.slices:
        return profile.multiprocessors
    smallest = min(product.mig_profiles or (profile,), key=lambda each: (each.slices, each.multiprocessors))
    return smallest.multiprocessors * slices // smallest.slices


def free_compute_starts(slices: int, size: int, taken: Iterable[tuple[int, int]]) -> list[int]:
    """The possible starts that ``taken``, runs of (start, slices), leaves free."""
    runs = list(taken)
    return [
        start
        for start in compute_starts(slices, size)
        if all(start >= other + length or other >= start + size for other, length in runs)
    ]


def device_name(profile: ProfileDescription, slices: int) -> str:
    """``3g.20gb``, or ``1c.3g.20gb`` for a compute instance that has not all of its GPU instance."""
    return profile.name if slices == profile.slices else f"{slices}c.{profile.name}"
