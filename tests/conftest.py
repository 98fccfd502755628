"""For all tests: nothing that a run has started outlives it."""

from __future__ import annotations

import subprocess

import pytest

from tests.run_guard import start_guard

_GUARD = pytest.StashKey[subprocess.Popen[bytes] | None]()


def pytest_configure(config: pytest.Config) -> None:
    # The workers of pytest-xdist are started by the run and carry its mark.
    if not hasattr(config, "workerinput"):
        config.stash[_GUARD] = start_guard()
