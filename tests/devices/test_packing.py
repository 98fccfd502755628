"""The published order of MIG devices: which placement goes first, on every recorded product."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.devices.packing import placement_order
from dra_driver.hardware.model import MigPlacement, MigProfile
from tests.devices.recorded import mig_machines, recorded_profiles

FreePlaces = tuple[tuple[int, int, int], ...]

MACHINES = mig_machines()
SEVEN_SLICES = tuple(machine for machine in MACHINES if machine not in ("a30", "rtx-pro-6000"))


def starts(profiles: Sequence[MigProfile], name: str) -> list[int]:
    return [placement.start for profile, placement in placement_order(profiles) if profile.name == name]


@pytest.mark.parametrize("machine", SEVEN_SLICES)
def test_on_seven_slices_small_ones_begin_where_no_large_one_is_lost(machine: str) -> None:
    """4g fits at 0 only, so everything else begins at the other end; only slot 6 is of no use to a 2g."""
    profiles = recorded_profiles(machine)
    by_id = {profile.id: starts(profiles, profile.name) for profile in profiles}
    assert by_id == {
        19: [6, 5, 4, 3, 2, 1, 0],  # 1g
        20: [6, 5, 4, 3, 2, 1, 0],  # 1g+me
        15: [6, 4, 2, 0],  # 1g, double memory
        14: [4, 2, 0],  # 2g
        9: [4, 0],  # 3g
        5: [0],  # 4g
        0: [0],  # 7g
    }


def test_twelve_units_fill_one_half_before_the_other() -> None:
    profiles = recorded_profiles("rtx-pro-6000")
    assert starts(profiles, "1g.24gb") == [9, 6, 3, 0]
    assert starts(profiles, "2g.48gb-me") == [6, 0]


def test_a_request_that_several_profiles_satisfy_gets_the_smallest() -> None:
    """By slices, then memory, then engines: a media engine is not spent on who did not ask for one."""
    names = [profile.name for profile, _ in placement_order(recorded_profiles("rtx-pro-6000"))]
    assert list(dict.fromkeys(names)) == [
        "1g.24gb-me",
        "1g.24gb",
        "1g.24gb+gfx",
        "1g.24gb+me",
        "1g.24gb+me.all",
        "2g.48gb-me",
        "2g.48gb",
        "2g.48gb+gfx",
        "2g.48gb+me.all",
        "4g.96gb",
        "4g.96gb+gfx",
    ]
    a100 = list(dict.fromkeys(profile.name for profile, _ in placement_order(recorded_profiles("a100-sxm4-40gb"))))
    assert a100 == ["1g.5gb", "1g.5gb+me", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"]


@pytest.mark.parametrize("machine", MACHINES)
def test_every_placement_is_published_once_whatever_the_order_of_the_table(machine: str) -> None:
    profiles = list(recorded_profiles(machine))
    order = placement_order(profiles)
    expected = {(profile.id, placement) for profile in profiles for placement in profile.placements}
    assert len(order) == len(expected)
    assert {(profile.id, placement) for profile, placement in order} == expected
    for seed in range(5):
        shuffled = [
            replace(profile, placements=tuple(random.Random(seed).sample(profile.placements, len(profile.placements))))
            for profile in random.Random(seed).sample(profiles, len(profiles))
        ]
        assert [(profile.id, placement) for profile, placement in placement_order(shuffled)] == [
            (profile.id, placement) for profile, placement in order
        ]


@pytest.mark.parametrize("machine", MACHINES)
def test_the_smallest_keep_the_largest_free_for_as_long_as_any_order_can(machine: str) -> None:
    """Brute force over all orders of the smallest profile: after the first no order leaves larger placements free, or
    more of them; of those that leave as much, none does after the second; and so on."""
    profiles = recorded_profiles(machine)
    smallest = placement_order(profiles)[0][0]
    larger = [profile for profile in profiles if profile.slice_count > smallest.slice_count]
    left = cache(lambda taken: left_free(larger, taken))

    def course(line: Sequence[MigPlacement]) -> list[FreePlaces]:
        return [left(frozenset(line[:count])) for count in range(1, len(line) + 1)]

    ours = course([placement for profile, placement in placement_order(profiles) if profile is smallest])
    assert ours == max(course(line) for line in permutations(smallest.placements))


def left_free(profiles: Iterable[MigProfile], taken: Iterable[MigPlacement]) -> FreePlaces:
    """(compute slices, memory slices, how many places) of every size that is still free, largest first."""
    sizes = {(profile.slice_count, placement) for profile in profiles for placement in profile.placements}
    free = [(slices, at.size) for slices, at in sizes if not any(at.overlaps(other) for other in taken)]
    return tuple((*size, free.count(size)) for size in sorted(set(free), reverse=True))


@st.composite
def tables(draw: st.DrawFn) -> list[MigProfile]:
    """Products that nobody has seen: any number of slices, placements that overlap within a profile too."""
    template = recorded_profiles("a100-sxm4-40gb")[0]
    slices = draw(st.integers(1, 12))
    profiles = []
    for number in range(draw(st.integers(0, 6))):
        size = draw(st.integers(1, slices))
        places = draw(st.sets(st.integers(0, slices - size), min_size=1))
        placements = tuple(MigPlacement(start, size) for start in places)
        compute = draw(st.integers(1, size))
        profiles.append(replace(template, id=number, name=f"p{number}", slice_count=compute, placements=placements))
    return profiles


@given(tables())
def test_any_table_is_put_in_order(profiles: list[MigProfile]) -> None:
    order = placement_order(profiles)
    expected = [(profile.id, placement) for profile in profiles for placement in profile.placements]
    assert sorted((profile.id, placement) for profile, placement in order) == sorted(expected)
    assert placement_order(list(reversed(profiles))) == order
