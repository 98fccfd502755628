"""Where GPU instances go when all that a GPU shall have is known beforehand: a search, not first come, first served.

NVML places one instance at a time and may spoil the place of the next; mig-parted therefore tries orders of creation
until one works. Here all placements are chosen before anything is created. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from dra_driver.hardware.model import MigPlacement, MigProfile

_ATTEMPTS_KEPT = 3


@dataclass(frozen=True, slots=True, order=True)
class Placed:
    """An instance of the profile with the hardware's id ``profile_id`` at ``placement``."""

    placement: MigPlacement
    profile_id: int


@dataclass(frozen=True, slots=True)
class NoFit:
    """``attempts`` are the arrangements that came furthest, at most three of ``tried``, and the profile that then had
    no place left. Without attempts, ``limit`` says what cannot hold wherever instances are placed."""

    wanted: Mapping[int, int]
    limit: str = ""
    attempts: tuple[tuple[tuple[Placed, ...], int], ...] = ()
    tried: int = 0


def fit(
    profiles: Sequence[MigProfile], wanted: Mapping[int, int], existing: Sequence[Placed]
) -> tuple[Placed, ...] | NoFit:
    """Placements for ``wanted`` (counts by profile id), keeping as many of ``existing`` as possible, by placement.

    Of arrangements that keep as many, the one that keeps the earlier ones of ``existing``. Everything not kept counts
    as gone. KeyError for a profile that is not among ``profiles``.
    """
    table = {profile.id: profile for profile in profiles}
    too_many = next((each for each in wanted if wanted[each] > table[each].instance_count), None)
    if too_many is not None:
        profile, count = table[too_many], wanted[too_many]
        return NoFit(wanted, f"{count} of {profile.name} are wanted, and a GPU holds at most {profile.instance_count}")
    search = _Search(table, wanted)
    found = search.run(())
    if found is None:
        return NoFit(wanted, attempts=tuple(search.attempts), tried=search.tried)
    if limit := _missing_engines(profiles, wanted):
        return NoFit(wanted, limit)
    for kept in _subsets(existing):
        if not Counter(each.profile_id for each in kept) <= Counter(wanted) or _overlap(kept):
            continue
        keeping = _Search(table, wanted).run(kept)
        if keeping is not None:
            found = keeping
            break
    return tuple(sorted(found))


_ENGINES = {
    "multiprocessors": "multiprocessors",
    "copy engines": "copy_engines",
    "decoders": "decoders",
    "encoders": "encoders",
    "JPEG engines": "jpeg_engines",
    "OFA engines": "ofa_engines",
}


def _missing_engines(profiles: Sequence[MigProfile], wanted: Mapping[int, int]) -> str:
    """Which engines ``wanted`` needs more of than the GPU has; empty for none.

    An instance has its engines to itself, and the GPU has as many as its largest profile gets.
    """
    for words, attribute in _ENGINES.items():
        needed = sum(getattr(profile, attribute) * wanted.get(profile.id, 0) for profile in profiles)
        there = max((getattr(profile, attribute) for profile in profiles), default=0)
        if needed > there:
            return f"there is place, but they need {needed} {words} of {there}"
    return ""


@dataclass(slots=True)
class _Search:
    """Profiles from the largest to the smallest, each at the placements that spoil the least first."""

    profiles: Mapping[int, MigProfile]
    wanted: Mapping[int, int]
    attempts: list[tuple[tuple[Placed, ...], int]] = field(default_factory=list)
    tried: int = 0

    def run(self, kept: Sequence[Placed]) -> tuple[Placed, ...] | None:
        missing = Counter(self.wanted)
        missing.subtract(each.profile_id for each in kept)
        order = sorted((each for each, count in missing.items() if count), key=self._largest_first)
        return self._place(order, missing, tuple(kept))

    def _largest_first(self, profile_id: int) -> tuple[int, int, int]:
        profile = self.profiles[profile_id]
        return (-max((each.size for each in profile.placements), default=0), -profile.slice_count, profile_id)

    def _place(
        self, order: Sequence[int], missing: Mapping[int, int], placed: tuple[Placed, ...]
    ) -> tuple[Placed, ...] | None:
        if not order:
            return placed
        profile_id, rest = order[0], order[1:]
        free = [
            place
            for place in cheapest_first(self.profiles[profile_id], self.profiles.values())
            if not any(place.overlaps(each.placement) for each in placed)
        ]
        found = None
        dead_end = True
        for places in combinations(free, missing[profile_id]):
            added = tuple(Placed(place, profile_id) for place in places)
            if _overlap(added):
                continue
            dead_end = False
            found = self._place(rest, missing, (*placed, *added))
            if found is not None:
                break
        if dead_end:
            self._note(placed, profile_id)
        return found

    def _note(self, placed: tuple[Placed, ...], profile_id: int) -> None:
        self.tried += 1
        best = len(self.attempts[0][0]) if self.attempts else -1
        if len(placed) > best:
            self.attempts = []
        if len(placed) >= best and len(self.attempts) < _ATTEMPTS_KEPT:
            self.attempts.append((tuple(sorted(placed)), profile_id))


def cheapest_first(profile: MigProfile, profiles: Iterable[MigProfile]) -> list[MigPlacement]:
    """Placements of ``profile``, first those that overlap the fewest placements of all ``profiles``."""
    others = [place for each in profiles for place in each.placements]
    return sorted(profile.placements, key=lambda place: (sum(map(place.overlaps, others)), place))


def _subsets(existing: Sequence[Placed]) -> Iterator[tuple[Placed, ...]]:
    """All of them, the largest first, those with the earlier members before others."""
    for size in range(len(existing), -1, -1):
        yield from combinations(existing, size)


def _overlap(placed: Sequence[Placed]) -> bool:
    return any(one.placement.overlaps(other.placement) for one, other in combinations(placed, 2))
