"""A plugin killed anywhere in prepare, unprepare or its own recovery leaves nothing that the next one cannot put right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.process
@pytest.mark.parametrize("scenario", ["prepare-retry", "prepare-unprepare", "unprepare", "recovery"])
def test_killed_at_every_file_operation(scenario: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.prepare_sweep", scenario, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    with_recovery, without = map(int, done.stdout.split())
    assert with_recovery >= 10
    assert without >= 10
