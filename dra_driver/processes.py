"""Processes that outlive the one that started them: named so that no other process can be taken for them.

A process is known by its id and the time it was started (field 22 of /proc/PID/stat): an id alone may belong to another
process by now.
"""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A process as a state file names it."""

    pid: int
    started: int  # clock ticks after boot

    @classmethod
    def of(cls, pid: int) -> Process | None:
        started = _started(pid)
        return None if started is None else cls(pid, started)

    @property
    def alive(self) -> bool:
        return _started(self.pid) == self.started

    def end(self, number: signal.Signals, *, timeout: float) -> bool:
        """Send a signal and wait; True once it is gone. The pidfd is opened before the check, so that no other process
        can get the signal."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.alive:
                return True
            signal.pidfd_send_signal(pidfd, number)
            return bool(select.select([pidfd], [], [], timeout)[0])
        except ProcessLookupError:
            return True
        finally:
            os.close(pidfd)

    def stop(self, *, timeout: float = 5.0) -> bool:
        """SIGTERM, and SIGKILL when that is not enough; True once it is gone."""
        return self.end(signal.SIGTERM, timeout=timeout) or self.end(signal.SIGKILL, timeout=timeout)

    def write(self, path: Path) -> None:
        path.write_text(f"{self.pid} {self.started}\n")

    @classmethod
    def read(cls, path: Path) -> Process | None:
        """What :meth:`write` wrote; None where there is no such file, or half of one."""
        try:
            pid, started = path.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return cls(int(pid), int(started))

    def children(self) -> list[Process]:
        try:
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return []
        return [child for pid in text.split() if (child := Process.of(int(pid)))]


def _started(pid: int) -> int | None:
    """When it was started; None for a process that is gone or only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold spaces
    return None if fields[0] in "ZX" else int(fields[19])
