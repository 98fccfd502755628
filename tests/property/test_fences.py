"""Whatever happens to a node: MPS groups, CDI files and recorded limits are just those that its claims are to have."""

from __future__ import annotations

import logging

import pytest

from tests.long_runs import fast_folder, steps
from tests.property.fence_world import FenceWorld

_STEPS = 10_000  # in several worlds
_STEPS_OF_A_WORLD = 400


@pytest.mark.timeout(600)
def test_what_is_there_is_what_claims_have(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.disable(logging.CRITICAL)  # thousands of expected errors
    try:
        worlds = steps(_STEPS, _STEPS_OF_A_WORLD) // _STEPS_OF_A_WORLD
        prepared = kills = lost = 0
        for seed in range(worlds):
            with fast_folder() as folder, monkeypatch.context() as patches:
                world = FenceWorld(folder, seed, patches.setattr)
                _live(world)
                world.engine.stop(0.0)
                prepared, kills, lost = prepared + world.prepared, kills + world.kills, lost + world.lost
        assert prepared > worlds * _STEPS_OF_A_WORLD // 7, "worlds are about something"
        assert kills > worlds * _STEPS_OF_A_WORLD // 50
        assert lost > worlds * _STEPS_OF_A_WORLD // 100
    finally:
        logging.disable(logging.NOTSET)


def _live(world: FenceWorld) -> None:
    try:
        for _ in range(_STEPS_OF_A_WORLD):
            world.step()
        world.finish()
    except AssertionError as error:
        raise AssertionError(f"{error}\n{world.story()}") from error
