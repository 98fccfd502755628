"""Whatever happens to a node: what is on the hardware is what its prepared claims have, and what people made by hand."""

from __future__ import annotations

import logging

import pytest

from tests.devices.recorded import mig_machines
from tests.long_runs import fast_folder, steps
from tests.property.mig_world import World

_STEPS = 10_000  # for each machine, in several worlds
_STEPS_OF_A_WORLD = steps(500, 300)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", mig_machines())
def test_the_hardware_has_what_claims_and_people_have(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logging.disable(logging.CRITICAL)  # thousands of expected errors
    try:
        worlds = steps(_STEPS // _STEPS_OF_A_WORLD, 1)
        prepared = kills = 0
        for seed in range(worlds):
            with fast_folder() as folder, monkeypatch.context() as patches:
                world = World(folder, machine, seed, patches.setattr)
                _live(world)
                world.engine.stop(0.0)
                prepared, kills = prepared + world.prepared, kills + world.kills
        assert prepared > worlds * _STEPS_OF_A_WORLD // 7, "worlds are about something"
        assert kills > worlds * _STEPS_OF_A_WORLD // 50
    finally:
        logging.disable(logging.NOTSET)


def _live(world: World) -> None:
    try:
        for _ in range(_STEPS_OF_A_WORLD):
            world.step()
        world.settle()
    except AssertionError as error:
        raise AssertionError(f"{error}\n{world.story()}") from error
