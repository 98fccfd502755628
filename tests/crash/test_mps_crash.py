"""A supervisor killed anywhere leaves nothing that the next one cannot put right, and no client notices."""

from __future__ import annotations

import pytest

from tests.crash.mps_sweep import SCENARIOS, WITH_SHARES
from tests.crash.sweeps import run
from tests.kubelet_plugin.fakes import short_folder
from tests.kubelet_plugin.mps_supervisor.plain import needs_rights
from tests.long_runs import stride

pytestmark = [pytest.mark.process, pytest.mark.root, needs_rights]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", [*SCENARIOS, *WITH_SHARES])
def test_killed_at_every_operation(scenario: str) -> None:
    every = stride(30)
    with short_folder() as folder:
        (kills,) = run("mps_sweep", scenario, str(folder), str(every))
    assert kills * every >= 18
