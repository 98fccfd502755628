"""Ends what a test run has started when the run itself has ended, however it did.

A run that is killed cannot end its servers, and each of them would have to be started in a special way to end by itself.
So a process in a session of its own waits for the run, then ends everything that carries the run's mark in its
environment: children, theirs, and the workers of pytest-xdist. A process that gets an environment of its own has to be
given the mark (``mark``). Linux only: elsewhere a killed run leaves its servers to the user.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from e2e.clusters.processes import Process, wait_for_end

MARK = "GPU_DRA_TEST_RUN"

_ROOT = Path(__file__).resolve().parents[1]
_PROC = Path("/proc")
_IN_ORDER_SECONDS = 5.0
_LONGEST_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_QUIET_LOOKS = 3  # a process that is being started shows its environment a moment late


def start_guard() -> subprocess.Popen[bytes] | None:
    """Mark what this process starts from now on, to be ended with it. The caller keeps what is returned."""
    if not _PROC.joinpath("self/environ").exists():
        return None
    token = secrets.token_hex(16)
    # Without the mark of a run that this one is a part of: that one's guard must not end ours before it has worked.
    unmarked = {name: value for name, value in os.environ.items() if name != MARK}
    guard = subprocess.Popen(
        [sys.executable, "-m", "tests.run_guard", str(os.getpid()), token],
        cwd=_ROOT,
        env=unmarked,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.environ[MARK] = token
    return guard


def mark() -> dict[str, str]:
    """What to add to an environment that is not ours."""
    return {MARK: os.environ[MARK]} if MARK in os.environ else {}


def marked(token: str) -> dict[Process, str]:
    """The processes of a run, with their command lines."""
    found = {}
    for name in os.listdir(_PROC):
        # Who it is, before what it has: a process that takes over the id in between is another one.
        process = Process.of(int(name)) if name.isdigit() else None
        if process is None:
            continue
        try:
            environment = (_PROC / name / "environ").read_bytes().split(b"\0")
            command = (_PROC / name / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it has ended, or belongs to somebody else
            continue
        if f"{MARK}={token}".encode() in environment:
            found[process] = command
    return found


def end_marked(token: str) -> dict[Process, str]:
    """End them: SIGTERM, and SIGKILL for those that are there still after a while. Returns what was ended."""
    began = time.monotonic()
    asked: dict[Process, str] = {}
    quiet = 0
    while quiet < _QUIET_LOOKS and time.monotonic() - began < _LONGEST_SECONDS:
        left = marked(token)
        quiet = 0 if left else quiet + 1
        late = time.monotonic() - began > _IN_ORDER_SECONDS
        for process in left:
            if late:
                process.end(signal.SIGKILL, timeout=0)
            elif process not in asked:
                process.end(signal.SIGTERM, timeout=0)
        asked.update(left)
        time.sleep(_LOOK_SECONDS)
    return asked


def main(arguments: Sequence[str]) -> None:
    pid, token = int(arguments[0]), arguments[1]
    wait_for_end(pid)
    ended = end_marked(token)
    with contextlib.suppress(OSError):  # nobody may listen any more
        for process, command in ended.items():
            print(f"left by the test run and ended: {process.pid} {command}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
