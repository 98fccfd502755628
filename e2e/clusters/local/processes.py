"""Processes by pid and start time, so that a pid that was given to somebody else is never taken for ours."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessId:
    """``started`` is field 22 of proc_pid_stat(5): clock ticks since boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Raises ProcessLookupError when there is no such process."""
        started = start_time(pid)
        if started is None:
            raise ProcessLookupError(f"there is no process {pid}")
        return cls(pid, started)

    @classmethod
    def read(cls, path: Path) -> ProcessId | None:
        try:
            pid, started = path.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return cls(int(pid), int(started))

    def write(self, path: Path) -> None:
        path.write_text(f"{self.pid} {self.started}\n")

    def is_alive(self) -> bool:
        return start_time(self.pid) == self.started

    def kill(self, number: int, timeout: float) -> bool:
        """Signal it and wait until it is gone; False when it is still there after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def end(self) -> None:
        """SIGTERM, and SIGKILL when that is not enough."""
        if not self.kill(signal.SIGTERM, 5.0):
            self.kill(signal.SIGKILL, 5.0)


def start_time(pid: int) -> int | None:
    """None for a process that does not exist or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
