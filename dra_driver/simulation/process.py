"""One child process of the embedded cluster: a module of ours in a Python of its own, its output in a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

_TAIL_LINES = 15
# Where this package lies, so that a child finds it from any working directory, installed or not.
_PACKAGES = Path(__file__).resolve().parents[2]


class ProcessDiedError(Exception):
    """A process ended that should not have; the message has the end of its log."""


class ChildProcess:
    """Runs ``python -m <module> <arguments>`` between start and stop, in a session of its own, so that a Ctrl-C at the
    terminal reaches only the one who stops it in order."""

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], log: Path, hidden_variables: Collection[str] = ()
    ) -> None:
        """``hidden_variables`` of the environment are not handed on: they may mean something to the module."""
        self.name = name
        self.log = log
        self._module = module
        self._arguments = tuple(arguments)
        self._hidden = frozenset(hidden_variables)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start from the thread that lives longest: with the death of that thread the child is ended too (Linux)."""
        inherited = os.environ.get("PYTHONPATH", "")
        paths = [str(_PACKAGES), *([inherited] if inherited else [])]
        environment = {name: value for name, value in os.environ.items() if name not in self._hidden}
        environment["PYTHONUNBUFFERED"] = "1"
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        starter = "dra_driver.simulation.process_child"
        command = [sys.executable, "-m", starter, str(os.getpid()), self._module, *self._arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises :class:`ProcessDiedError` when the process has ended."""
        code = self._process.poll() if self._process else None
        if code is not None:
            end = "\n  ".join(self.log_tail())
            raise ProcessDiedError(f"{self.name} ended with {_exit_text(code)}; the end of {self.log}:\n  {end}")

    def log_tail(self, lines: int = _TAIL_LINES) -> list[str]:
        try:
            return self.log.read_text(errors="replace").splitlines()[-lines:]
        except FileNotFoundError:
            return []

    def terminate(self) -> None:
        """Ask it to end; :meth:`stop` waits for that."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self, timeout: float = 10.0) -> None:
        """1. SIGTERM; 2. wait; 3. SIGKILL after ``timeout`` seconds."""
        if self._process is None:
            return
        self.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _exit_text(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
