"""A test run that is ended leaves no process behind, whoever ends it and however."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.clusters.processes import Process
from tests.long_runs import stride
from tests.run_guard import MARK, mark
from tests.starts_everything import SAID

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [
    pytest.mark.process,
    pytest.mark.waits,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the guard needs /proc"),
]


def wait_for(check: Callable[[], bool], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def command_of(process: Process) -> str:
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def below(pid: int) -> set[Process]:
    """Everything that a process has started, and what that has."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        try:
            parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
        except (ValueError, OSError):  # not a process, or one that has ended
            continue
    found, wave = set(), {pid}
    while wave:
        wave = {child for child, parent in parents.items() if parent in wave}
        found |= wave
    return {process for each in found if (process := Process.of(each)) is not None}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets, and for all temporary files of the run that is ended."""
    with tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def run(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    said = folder / "said"
    said.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with (folder / "out").open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            cwd=ROOT,
            env={**kept, SAID: str(said), "TMPDIR": str(folder)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )


# Each starts everything that tests can start, a real API server as well.
ENDS = [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, 0), (signal.SIGKILL, 2)]


@pytest.mark.parametrize(
    ("number", "workers"),
    ENDS[:: stride(3)],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else f"{value}-workers",
)
def test_a_run_that_is_ended_leaves_no_process(folder: Path, number: signal.Signals, workers: int) -> None:
    names = ["everything", "plugin"] if workers else ["everything"]
    chosen = ["-n", str(workers)] if workers else ["-k", "everything"]
    runner = run(folder, "tests/starts_everything.py", *chosen)
    started: set[Process] = set()
    try:
        said = folder / "said"
        wait_for(lambda: runner.poll() is not None or all((said / name).exists() for name in names), 200)
        assert runner.poll() is None, (folder / "out").read_text()
        started = below(runner.pid)
        commands = "\n".join(map(command_of, started))
        for each in (word for name in names for word in (said / name).read_text().splitlines()[1:]):
            assert each in commands
        runner.send_signal(number)
        runner.wait(60)
        wait_for(lambda: not any(process.alive for process in started), 60)
    finally:
        runner.kill()
        runner.wait()
        for process in started:
            process.end(signal.SIGKILL, timeout=0)


def test_a_process_with_an_environment_of_its_own_is_given_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, "token")
    assert mark() == {MARK: "token"}
    monkeypatch.delenv(MARK)
    assert mark() == {}
