"""The search for placements, against trying everything, on the profile tables of all recorded machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dra_driver.devices.mig_fit import NoFit, Placed, cheapest_first, fit
from dra_driver.hardware.model import MigPlacement, MigProfile
from tests.devices.recorded import mig_machines, recorded_gpu
from tests.long_runs import steps


@cache
def profiles_of(machine: str) -> tuple[MigProfile, ...]:
    mig = recorded_gpu(machine).mig
    assert mig is not None
    return mig.profiles


def by_name(machine: str) -> dict[str, MigProfile]:
    return {profile.name: profile for profile in profiles_of(machine)}


def counts(machine: str, **wanted: int) -> dict[int, int]:
    """``_1g_10gb=2`` for two of 1g.10gb: names with dots as keywords."""
    return {by_name(machine)[name.removeprefix("_").replace("_", ".")].id: count for name, count in wanted.items()}


def clash(placed: Sequence[Placed]) -> bool:
    return any(one.placement.overlaps(other.placement) for one, other in combinations(placed, 2))


def arrangements(profiles: Mapping[int, MigProfile], wanted: Sequence[int]) -> Iterator[frozenset[Placed]]:
    """Every set of placements for ``wanted``, with no order and no cleverness."""
    if not wanted:
        yield frozenset()
        return
    for rest in arrangements(profiles, wanted[1:]):
        for place in profiles[wanted[0]].placements:
            if not any(place.overlaps(each.placement) for each in rest):
                yield rest | {Placed(place, wanted[0])}


@st.composite
def situations(draw: st.DrawFn) -> tuple[tuple[MigProfile, ...], dict[int, int], list[Placed]]:
    """Profiles of a recorded machine, what is wanted of them, and instances that exist without overlap."""
    profiles = profiles_of(draw(st.sampled_from(mig_machines())))
    wanted = Counter(draw(st.lists(st.sampled_from([profile.id for profile in profiles]), max_size=5)))
    everywhere = [Placed(place, profile.id) for profile in profiles for place in profile.placements]
    existing: list[Placed] = []
    for placed in draw(st.lists(st.sampled_from(everywhere), max_size=7)):
        if not clash([*existing, placed]):
            existing.append(placed)
    return profiles, dict(wanted), existing


@given(situations())
@settings(max_examples=steps(400, 100), deadline=None)
def test_it_finds_what_trying_everything_finds_and_keeps_as_much(
    situation: tuple[tuple[MigProfile, ...], dict[int, int], list[Placed]],
) -> None:
    profiles, wanted, existing = situation
    table = {profile.id: profile for profile in profiles}
    possible = set(arrangements(table, list(Counter(wanted).elements())))
    found = fit(profiles, wanted, existing)
    assert found == fit(profiles, wanted, existing)
    if isinstance(found, NoFit):
        assert bool(found.limit) == _limited(profiles, wanted, bool(possible))
        assert bool(found.attempts) != bool(found.limit)
        for placed, profile_id in found.attempts:
            assert not clash(placed)
            assert profile_id in wanted
        return
    assert frozenset(found) in possible
    assert Counter(each.profile_id for each in found) == Counter(wanted)
    assert len(set(found) & set(existing)) == max(len(each & set(existing)) for each in possible)


def _limited(profiles: Sequence[MigProfile], wanted: Mapping[int, int], placed: bool) -> bool:
    """Whether something but places is missing."""
    engines = ("multiprocessors", "copy_engines", "decoders", "encoders", "jpeg_engines", "ofa_engines")
    table = {profile.id: profile for profile in profiles}
    too_many = any(count > table[each].instance_count for each, count in wanted.items())
    return too_many or (
        placed
        and any(
            sum(getattr(table[each], engine) * count for each, count in wanted.items())
            > max(getattr(profile, engine) for profile in profiles)
            for engine in engines
        )
    )


@pytest.mark.parametrize("machine", mig_machines())
def test_every_profile_fits_as_often_as_nvml_says(machine: str) -> None:
    for profile in profiles_of(machine):
        found = fit(profiles_of(machine), {profile.id: profile.instance_count}, [])
        assert not isinstance(found, NoFit), found
        assert len(found) == profile.instance_count


def test_small_instances_leave_the_large_places_free() -> None:
    found = fit(profiles_of("h100-sxm5-80gb"), counts("h100-sxm5-80gb", _1g_10gb=1), [])
    assert found == (Placed(MigPlacement(6, 1), 19),)
    first = [place.start for place in cheapest_first(by_name("a30")["1g.6gb"], profiles_of("a30"))]
    assert first == [0, 1, 2, 3]


def test_what_no_order_of_creation_by_nvml_would_find() -> None:
    """A 4g has one place only, so everything else must be put elsewhere, whatever the file's order."""
    wanted = counts("h100-sxm5-80gb", _1g_10gb=1, _2g_20gb=1, _4g_40gb=1)
    found = fit(profiles_of("h100-sxm5-80gb"), wanted, [])
    assert not isinstance(found, NoFit)
    assert {(each.profile_id, each.placement.start) for each in found} == {(5, 0), (14, 4), (19, 6)}


def test_what_exists_moves_only_when_it_must() -> None:
    profiles = profiles_of("h100-sxm5-80gb")
    small, large = Placed(MigPlacement(1, 1), 19), Placed(MigPlacement(4, 4), 9)
    kept = fit(profiles, counts("h100-sxm5-80gb", _1g_10gb=1, _3g_40gb=1), [small, large])
    assert kept == (small, large)
    moved = fit(profiles, counts("h100-sxm5-80gb", _1g_10gb=1, _4g_40gb=1), [small, large])
    assert moved == (Placed(MigPlacement(0, 4), 5), Placed(MigPlacement(6, 1), 19))


def test_a_refusal_says_what_was_tried() -> None:
    refused = fit(profiles_of("a100-sxm4-40gb"), counts("a100-sxm4-40gb", _3g_20gb=2, _1g_5gb=1), [])
    assert isinstance(refused, NoFit)
    both = (Placed(MigPlacement(0, 4), 9), Placed(MigPlacement(4, 4), 9))
    assert refused.attempts == ((both, 19),)
    assert refused.tried == 1


def test_engines_and_numbers_limit_wherever_instances_are_placed() -> None:
    refused = fit(profiles_of("a100-sxm4-40gb"), {20: 2}, [])
    assert isinstance(refused, NoFit)
    assert refused.limit == "2 of 1g.5gb+me are wanted, and a GPU holds at most 1"
    names = by_name("rtx-pro-6000")
    all_media, plain, none = names["1g.24gb+me.all"].id, names["1g.24gb"].id, names["1g.24gb-me"].id
    refused = fit(profiles_of("rtx-pro-6000"), {all_media: 1, plain: 1}, [])
    assert isinstance(refused, NoFit)
    assert refused.limit == "there is place, but they need 5 decoders of 4"
    assert not isinstance(fit(profiles_of("rtx-pro-6000"), {all_media: 1, none: 3}, []), NoFit)


def test_nothing_wanted_fits_everywhere() -> None:
    assert fit(profiles_of("a30"), {}, [Placed(MigPlacement(0, 1), 14)]) == ()
