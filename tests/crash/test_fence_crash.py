"""A plugin killed anywhere while it sets or clears memory limits leaves no limit and no reservation behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.long_runs import fast_folder

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "scenario", ["fence-again", "fence-end", "fence-unprepare", "clear", "clear-ended", "recovery"]
)
def test_killed_at_every_operation(scenario: str) -> None:
    with fast_folder() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.crash.fence_sweep", scenario, str(folder)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=280,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout) >= 10
