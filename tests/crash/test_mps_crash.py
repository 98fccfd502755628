"""A supervisor killed anywhere leaves nothing that the next one cannot put right, and no client notices."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dra_driver.mps.errors import MpsError
from dra_driver.mps.group import GroupState
from tests.kubelet_plugin.fakes import eventually, short_folder
from tests.kubelet_plugin.mps_supervisor.lab import PATIENCE, Lab
from tests.kubelet_plugin.mps_supervisor.plain import needs_rights
from tests.long_runs import LONG, steps

REPOSITORY = Path(__file__).parents[2]

pytestmark = [pytest.mark.process, pytest.mark.root, needs_rights]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", ["start-adopt", "start-stop", "stop-adopt", "adoption"])
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


@pytest.mark.timeout(3600)
def test_killed_at_random_while_groups_come_and_go() -> None:
    """Groups are started and stopped; the supervisor is killed at some point, another one comes; at the end nothing is
    left, and the client of a group that stayed was never interrupted."""
    chance = random.Random(20261130)
    with short_folder() as folder:
        lab = Lab(folder)
        try:
            supervisor = lab.process()
            lab.client.start(lab.group("stays", gpu=7))
            client = lab.counting("stays")
            for number in range(steps(500, 6)):
                working = threading.Thread(target=_come_and_go, args=(lab, number % 7))
                working.start()
                working.join(chance.uniform(0, 0.4))
                supervisor.kill()
                working.join(PATIENCE)
                assert not working.is_alive()
                client.still_counts()
                supervisor = lab.process()
            client.still_counts()
            lab.wait_for(GroupState.READY, "stays")
            for status in lab.client.groups():
                lab.client.stop(status.group.id)
            eventually(lambda: lab.left() == [], PATIENCE)
        finally:
            lab.close()


def _come_and_go(lab: Lab, gpu: int) -> None:
    """A start and a stop; the supervisor may be gone in the middle of either."""
    try:
        lab.client.start(lab.group(f"claim-{gpu}", gpu=gpu))
        lab.client.stop(f"claim-{gpu}")
    except MpsError:
        return
