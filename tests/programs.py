"""Starts our programs as processes of their own, in a Python of their own or as copies of one that has loaded them.

To load what a plugin needs takes longer than most tests use it. ``fork`` has it from ``tests.loaded``, of which there is
one for each process that runs tests; ``execute`` does what a user's shell does, for tests that look at the process itself.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parents[1]
_START_SECONDS = 60.0


class Program(Protocol):
    """What both have of ``subprocess.Popen``."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int, /) -> None: ...

    def kill(self) -> None: ...


class Starter(Protocol):
    def __call__(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], output: Path, errors: Path
    ) -> Program:
        """``python -m module arguments``; what it says is added to the files."""


def execute(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], output: Path, errors: Path
) -> Program:
    with output.open("ab") as out, errors.open("ab") as err:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment,
        )


def fork(module: str, arguments: Sequence[str], environment: Mapping[str, str], output: Path, errors: Path) -> Program:
    return _loaded().start(module, arguments, environment, output, errors)


def end_loaded() -> None:
    """With the test run."""
    if _loaded.cache_info().currsize:
        _loaded().close()
        _loaded.cache_clear()


class _Forked:
    """A copy. It is a child of the process that was copied, which says how it has ended."""

    def __init__(self, pid: int, loaded: _Loaded) -> None:
        self.pid = pid
        self._loaded = loaded

    def poll(self) -> int | None:
        return self._loaded.code(self.pid, 0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._loaded.code(self.pid, timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Loaded:
    """``tests.loaded``, and what has become of its copies."""

    def __init__(self) -> None:
        # A Ctrl-C at the terminal is for those who end it in order.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.loaded"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._asking = threading.Lock()
        self._news = threading.Condition()
        self._started: list[int] = []
        self._codes: dict[int, int] = {}
        self._listener = threading.Thread(target=self._listen, name="loaded-programs", daemon=True)
        self._listener.start()

    def start(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], output: Path, errors: Path
    ) -> _Forked:
        request = {
            "module": module,
            "arguments": list(arguments),
            "environment": dict(environment),
            "output": str(output),
            "errors": str(errors),
        }
        assert self._process.stdin is not None
        with self._asking:
            self._process.stdin.write(f"{json.dumps(request)}\n")
            self._process.stdin.flush()
            with self._news:
                assert self._news.wait_for(lambda: self._started, _START_SECONDS), "tests.loaded does not answer"
                return _Forked(self._started.pop(), self)

    def code(self, pid: int, timeout: float | None) -> int | None:
        """With which it has ended, once it has."""
        with self._news:
            self._news.wait_for(lambda: pid in self._codes, timeout)
            return self._codes.get(pid)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_START_SECONDS)
        self._listener.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            said = json.loads(line)
            with self._news:
                if "started" in said:
                    self._started.append(said["started"])
                    self._codes.pop(said["started"], None)  # of a process that had its id before
                else:
                    self._codes[said["ended"]] = said["code"]
                self._news.notify_all()


@functools.cache
def _loaded() -> _Loaded:
    return _Loaded()
