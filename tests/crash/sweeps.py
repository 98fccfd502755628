"""One process that runs sweeps, each in a child that it forks: to load what they need takes longer than a short sweep.

It has done nothing but load them, so each begins as a program of its own would (``python -m tests.crash.sweeps`` reads
a folder for its output, the module and its arguments, a JSON list a line, and answers with the exit code).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.crash import fence_sweep, fraction_sweep, mps_sweep, prepare_sweep

REPOSITORY = Path(__file__).parents[2]
OUTPUTS = ("out", "errors")
MAINS: dict[str, Callable[[Sequence[str]], None]] = {
    module.__name__.rpartition(".")[2]: module.main
    for module in (fence_sweep, fraction_sweep, mps_sweep, prepare_sweep)
}


class Sweeps:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, sweep: str, *arguments: str) -> list[int]:
        """The numbers that it prints. It fails with what the sweep says when that fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory(prefix="gd-sweep-") as folder:
            self._process.stdin.write(f"{json.dumps([folder, sweep, *arguments])}\n")
            self._process.stdin.flush()
            code = self._process.stdout.readline()
            output, errors = (Path(folder, name).read_text() for name in OUTPUTS)
        assert code == "0\n", errors[-4000:]
        return [int(number) for number in output.split()]


@contextmanager
def running() -> Iterator[Sweeps]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.sweeps"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Sweeps(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # also a sweep that was given up


def _forked(folder: str, sweep: str, *arguments: str) -> int:
    """The exit code of a child that does it; what it says is in ``folder``."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, name in enumerate(OUTPUTS, 1):
                os.dup2(os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT), number)
            MAINS[sweep](arguments)
            code = 0
        except BaseException:  # noqa: BLE001 - the child must not return into the parent's program
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    _pid, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    for line in sys.stdin:
        print(_forked(*json.loads(line)), flush=True)
