"""A copy of the process that has loaded everything is what a Python of its own is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests import says_how
from tests.kubelet_plugin.fakes import eventually
from tests.programs import ROOT, Program, Starter, execute, fork

pytestmark = [pytest.mark.process, pytest.mark.parametrize("start", [execute, fork])]
ENVIRONMENT = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), "ONE_MORE": "x"}


def started(start: Starter, folder: Path, *arguments: str) -> Program:
    return start(says_how.__name__, arguments, ENVIRONMENT, folder / "out", folder / "errors")


@pytest.mark.parametrize("code", [0, 3])
def test_it_is_started_as_asked(tmp_path: Path, start: Starter, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert started(start, tmp_path, str(code), "--more").wait(60) == code
    assert json.loads((tmp_path / "out").read_text()) == {
        "arguments": [str(code), "--more"],
        "environment": ENVIRONMENT,
        "folder": str(ROOT),
        "input": "",
        "threads": 1,
    }
    assert (tmp_path / "errors").read_text() == "said\n"


def test_what_fails_says_where(tmp_path: Path, start: Starter) -> None:
    assert started(start, tmp_path, "no number").wait(60) == 1
    assert (tmp_path / "errors").read_text().splitlines()[-1].startswith("ValueError: invalid literal")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_runs_until_a_signal_ends_it(tmp_path: Path, start: Starter, number: signal.Signals) -> None:
    program = started(start, tmp_path, "stay")
    try:
        eventually(lambda: (tmp_path / "errors").exists() and (tmp_path / "errors").read_text(), 60)
        assert program.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.01)
        program.send_signal(number)
        assert program.wait(60) == -number
        assert program.poll() == -number
        program.send_signal(number)  # which reaches nobody
    finally:
        program.kill()
