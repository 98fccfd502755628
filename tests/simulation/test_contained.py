"""A module with mounts and processes of its own: all of it ends with the one who started it, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from dra_driver.processes import Process
from dra_driver.simulation import contained
from e2e.clusters.processes import wait_for_end

pytestmark = [pytest.mark.process, pytest.mark.timeout(60)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_runs_inside_ends_too(number: signal.Signals) -> None:
    if not contained.is_possible():
        pytest.skip("this machine lets nobody but root have mounts of their own")
    command = [sys.executable, "-m", contained.__name__, "http.server", "0", "--bind", "127.0.0.1"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as launcher:
        try:
            assert launcher.stdout is not None
            assert launcher.stdout.readline().startswith("Serving HTTP")
            known = Process.of(launcher.pid)
            assert known is not None
            (unshare,) = known.children()
            (inside,) = unshare.children()
        finally:
            launcher.send_signal(number)
    for process in (unshare, inside):
        wait_for_end(process.pid)


def test_a_machine_without_unshare_lets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert not contained.is_possible()
