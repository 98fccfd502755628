"""The order of one GPU's MIG devices, and with it how claims for parts of GPUs are packed. Pure.

The scheduler takes the first device that fits, in published order (k8s.io/dynamic-resource-allocation, structured
allocator), so the order decides which large placements stay free. NVIDIA's driver publishes devices by the alphabet:
its first 3g on an A100 goes to memory slice 0, which is the only place of a 4g, although it would fit at 4.

The order is found, not listed: it comes from the placements that NVML reports, so it holds for products that nobody
has seen yet. Each profile's placements are put in line one after another; next is always the one whose occupation
destroys least of what the placements before it left, the largest placements counting first. ``docs/dev/packing.md``
measures it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dra_driver.hardware.model import MigPlacement, MigProfile

PlacedProfile = tuple[MigProfile, MigPlacement]

# Compute slices and memory slices: how much of a GPU a placement is.
_Size = tuple[int, int]
_Loss = tuple[int, ...]


def placement_order(profiles: Sequence[MigProfile]) -> tuple[PlacedProfile, ...]:
    """Every placement of every profile of one GPU, once, in the order to publish.

    Profiles follow each other from the smallest to the largest, so a request that several profiles satisfy (a CEL
    expression on memory, say) gets the smallest of them; of profiles with equal slices, the one with fewer engines is
    first, because those with media extensions are scarce. The order of ``profiles`` does not matter.
    """
    shapes = _shapes(profiles)
    return tuple(
        (profile, placement) for profile in sorted(profiles, key=_scarcity) for placement in _in_line(profile, shapes)
    )


def _in_line(profile: MigProfile, shapes: Sequence[frozenset[MigPlacement]]) -> Iterator[MigPlacement]:
    """The placements of one profile, cheapest first, each judged by what those before it have left."""
    waiting = set(profile.placements)
    free = list(shapes)
    while waiting:
        chosen = min(waiting, key=lambda placement: (_loss(placement, free), -placement.start, placement.size))
        yield chosen
        waiting.remove(chosen)
        free = [frozenset(other for other in shape if not other.overlaps(chosen)) for shape in free]


def _loss(placement: MigPlacement, free: Iterable[frozenset[MigPlacement]]) -> _Loss:
    """How many free placements of each size end when ``placement`` is occupied, from the largest size to the smallest.

    Compared as tuples: one 4g weighs more than any number of 2g. Smaller sizes than the placement's own count too, as
    the last word: a 1g with double memory costs one 1g at memory slice 6 and two elsewhere (7 holds none).
    """
    return tuple(sum(other.overlaps(placement) for other in shape) for shape in free)


def _shapes(profiles: Iterable[MigProfile]) -> tuple[frozenset[MigPlacement], ...]:
    """Placements by size, largest first. Variants of a profile (+me, +gfx, -me) count once, being equal here."""
    shapes: dict[_Size, set[MigPlacement]] = {}
    for profile in profiles:
        for placement in profile.placements:
            shapes.setdefault((profile.slice_count, placement.size), set()).add(placement)
    return tuple(frozenset(shapes[size]) for size in sorted(shapes, reverse=True))


def _scarcity(profile: MigProfile) -> tuple[int, ...]:
    """Sort key: slices, then memory, then engines. The hardware id makes it total."""
    memory_slices = max((placement.size for placement in profile.placements), default=0)
    media = profile.decoders + profile.encoders + profile.jpeg_engines + profile.ofa_engines
    return (profile.slice_count, memory_slices, media, -profile.instance_count, profile.id)
