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
from functools import lru_cache

from dra_driver.hardware.model import MigPlacement, MigProfile

PlacedProfile = tuple[MigProfile, MigPlacement]

Loss = tuple[int, ...]
# Compute slices and memory slices: how much of a GPU a placement is.
_Size = tuple[int, int]


def placement_order(profiles: Sequence[MigProfile]) -> tuple[PlacedProfile, ...]:
    """Every placement of every profile of one GPU, once, in the order to publish.

    Profiles follow each other from the smallest to the largest, so a request that several profiles satisfy (a CEL
    expression on memory, say) gets the smallest of them; of profiles with equal slices, the one with fewer engines is
    first, because those with media extensions are scarce. The order of ``profiles`` does not matter.
    """
    return _placement_order(tuple(profiles))


@lru_cache(maxsize=32)  # thousands of GPUs are of a few products
def _placement_order(profiles: tuple[MigProfile, ...]) -> tuple[PlacedProfile, ...]:
    sizes = _sizes(profiles)
    return tuple(
        (profile, at[mask])
        for profile in sorted(profiles, key=_scarcity)
        for at in ({_mask(placement): placement for placement in profile.placements},)
        for _, mask in cheapest_first(at, sizes)
    )


def cheapest_first(places: Iterable[int], sizes: Sequence[Iterable[int]], taken: int = 0) -> Iterator[tuple[Loss, int]]:
    """Those of ``places`` that are free, cheapest first, each judged by what those before it have left.

    Places are bit masks of memory slices, as are ``taken``, what is in use, and ``sizes``: all places of each size, the
    largest size first. With each place comes what it ends: how many free places of each size. Losses are compared as
    tuples, so one 4g weighs more than any number of 2g. Sizes below the place's own count too, as the last word: a 1g
    with double memory costs one 1g at memory slice 6 and two elsewhere (7 holds none). Equals go from the end.
    """
    waiting = {place for place in places if not place & taken}
    free = [[other for other in size if not other & taken] for size in sizes]
    while waiting:
        loss, back = min(
            (tuple(sum(1 for other in size if other & place) for size in free), -place) for place in waiting
        )
        yield loss, -back
        waiting.remove(-back)
        # Places of one profile may overlap; in line they stand all the same, in case those before are not taken.
        free = [[other for other in size if not other & -back] for size in free]


def _sizes(profiles: Iterable[MigProfile]) -> list[set[int]]:
    """Places by size, largest first. Variants of a profile (+me, +gfx, -me) count once, being equal here."""
    sizes: dict[_Size, set[int]] = {}
    for profile in profiles:
        for placement in profile.placements:
            sizes.setdefault((profile.slice_count, placement.size), set()).add(_mask(placement))
    return [sizes[size] for size in sorted(sizes, reverse=True)]


def _mask(placement: MigPlacement) -> int:
    return (1 << placement.end) - (1 << placement.start)


def _scarcity(profile: MigProfile) -> tuple[int, ...]:
    """Sort key: slices, then memory, then engines. The hardware id makes it total."""
    memory_slices = max((placement.size for placement in profile.placements), default=0)
    media = profile.decoders + profile.encoders + profile.jpeg_engines + profile.ofa_engines
    return (profile.slice_count, memory_slices, media, -profile.instance_count, profile.id)
