"""A plugin killed anywhere while it sets or clears memory limits leaves no limit and no reservation behind."""

from __future__ import annotations

import pytest

from tests.crash.sweeps import run
from tests.long_runs import fast_folder, stride


@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "scenario", ["fence-again", "fence-end", "fence-unprepare", "clear", "clear-ended", "recovery"]
)
def test_killed_at_every_operation(scenario: str) -> None:
    every = stride(8)
    with fast_folder() as folder:
        (kills,) = run("fence_sweep", scenario, str(folder), str(every))
    assert kills * every >= 10
