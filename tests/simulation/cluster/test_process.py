"""Child processes: started, watched, ended, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dra_driver.simulation.process import ChildProcess, ProcessDiedError

pytestmark = pytest.mark.process
SLEEPER = "tests.simulation.cluster.sleeper"


def wait_for(check: Callable[[], bool], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """A zombie has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_start_and_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLEEPER_SECRET", "secret")
    child = ChildProcess("sleeper", SLEEPER, [], tmp_path / "log", hidden_variables={"SLEEPER_SECRET"})
    child.start()
    pid = child.pid
    assert pid is not None
    wait_for(lambda: child.log_tail() == ["running without the secret"])
    child.check()
    child.stop()
    assert not is_running(pid)


def test_a_death_is_told_with_the_end_of_the_log(tmp_path: Path) -> None:
    child = ChildProcess("sleeper", SLEEPER, ["3"], tmp_path / "log")
    child.start()

    problems: list[str] = []

    def died() -> bool:
        try:
            child.check()
        except ProcessDiedError as error:
            problems.append(str(error))
        return bool(problems)

    wait_for(died)
    child.stop()
    assert "sleeper ended with exit code 3" in problems[0]
    assert "running" in problems[0]


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path; from dra_driver.simulation.process import ChildProcess\n"
        f"child = ChildProcess('sleeper', {SLEEPER!r}, [], Path({str(tmp_path / 'log')!r})); child.start()\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    root = str(Path(__file__).resolve().parents[3])
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_for(lambda: (tmp_path / "log").exists() and "running" in (tmp_path / "log").read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not is_running(child))
