"""A plugin killed anywhere in prepare, unprepare or its own recovery leaves nothing that the next one cannot put right."""

from __future__ import annotations

import pytest

from tests.crash.sweeps import run
from tests.long_runs import fast_folder, stride


@pytest.mark.process
@pytest.mark.parametrize("scenario", ["prepare-retry", "prepare-unprepare", "unprepare", "recovery"])
def test_killed_at_every_file_operation(scenario: str) -> None:
    assert _kills(scenario, "whole", stride(8)) >= 10


@pytest.mark.process
@pytest.mark.parametrize("scenario", ["prepare-retry", "prepare-unprepare", "unprepare", "recovery"])
def test_killed_at_every_file_operation_with_a_kind_of_its_own(scenario: str) -> None:
    """Nothing in ``prepare`` knows it, and it is put right all the same."""
    assert _kills(scenario, "toy", stride(10)) >= 10


@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", ["prepare-retry", "prepare-unprepare", "unprepare", "recovery"])
def test_killed_at_every_change_of_files_and_time_slices(scenario: str) -> None:
    """Two claims with shares of one GPU: its interval is there exactly while one of them is prepared."""
    assert _kills(scenario, "sliced", stride(14)) >= 20


@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", ["prepare-retry", "prepare-unprepare", "unprepare", "recovery"])
def test_killed_at_every_change_of_files_and_mps_groups(scenario: str) -> None:
    """A MIG device with a daemon of its own, and two shares of a GPU: groups are there exactly while claims are."""
    assert _kills(scenario, "mps", stride(24)) >= 30


@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", ["prepare-retry", "prepare-unprepare", "unprepare", "recovery"])
def test_killed_at_every_change_of_files_and_hardware(scenario: str) -> None:
    """MIG devices, on simulated GPUs: most of the file operations are changes of the hardware's state."""
    assert _kills(scenario, "mig", stride(30)) >= 20


@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fence", ["variables", "namespace", "cgroup"])
@pytest.mark.parametrize(
    "scenario", ["prepare-retry", "prepare-unprepare", "unprepare", "recovery", "recovery-unprepare"]
)
def test_killed_at_every_change_of_files_and_fences(scenario: str, fence: str) -> None:
    """Fractions with containers: groups, namespaces, limits and their records are there exactly while claims are."""
    assert _kills(scenario, fence, stride(50), sweep="fraction_sweep") >= 20


def _kills(scenario: str, devices: str, stride: int, *, sweep: str = "prepare_sweep") -> int:
    """How many positions were gone through, at least: with recovery at the next plugin's start, and without."""
    with fast_folder() as folder:
        return min(run(sweep, scenario, devices, str(folder), str(stride))) * stride
