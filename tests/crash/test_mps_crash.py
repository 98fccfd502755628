"""A supervisor killed anywhere leaves nothing that the next one cannot put right, and no client notices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.mps_sweep import SCENARIOS, WITH_SHARES
from tests.kubelet_plugin.fakes import short_folder
from tests.kubelet_plugin.mps_supervisor.plain import needs_rights
from tests.long_runs import LONG

REPOSITORY = Path(__file__).parents[2]

pytestmark = [pytest.mark.process, pytest.mark.root, needs_rights]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", [*SCENARIOS, *WITH_SHARES])
def test_killed_at_every_operation(scenario: str) -> None:
    stride = 1 if LONG else 9
    with short_folder() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.crash.mps_sweep", scenario, str(folder), str(stride)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=1700,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout) >= 18 // stride
