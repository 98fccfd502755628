"""Whoever asks for fractions in whatever form gets what the API says, and nobody what another has."""

from __future__ import annotations

import pytest

from dra_driver.simulation.hardware.description import recorded_machines
from tests.long_runs import steps
from tests.property.fraction_world import STEPS, FractionWorld

_SETS = 10_000  # of requests, for each machine, in several worlds
_SETS_OF_A_WORLD = 40


@pytest.mark.timeout(900)
@pytest.mark.parametrize("machine", recorded_machines())
def test_fractions_are_what_the_api_says(machine: str) -> None:
    worlds = [FractionWorld(machine, seed) for seed in range(steps(_SETS // _SETS_OF_A_WORLD, len(STEPS)))]
    for world in worlds:
        try:
            for _ in range(_SETS_OF_A_WORLD):
                world.step()
            world.free_all()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{world.story()}") from error
    sets = len(worlds) * _SETS_OF_A_WORLD
    assert sum(world.given for world in worlds) > sets // 4, "worlds are about something"
    assert sum(world.refusals_checked for world in worlds) > sets // 10
