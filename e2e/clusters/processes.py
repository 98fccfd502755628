"""Processes that outlive the one that started them: named so that no other process can be taken for them.

A process is known by its id and the time it was started (field 22 of /proc/PID/stat): an id alone may belong to another
process by now. A child starts in two steps: it waits on its standard input until its record is on disk, and ends when
its starter dies before that.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.clusters.interface import ClusterError


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


def start_detached(
    command: Sequence[str],
    *,
    log: Path,
    record: Callable[[Process], None],
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Start ``command`` in a session of its own; it must read a line from its standard input before it does anything,
    and end when there is none. ``record`` writes its state file before that line is sent."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=dict(environment) if environment is not None else None,
        )
    assert child.stdin is not None
    try:
        process = Process.of(child.pid)
        if process is None:
            raise ClusterError(f"{command[0]} ended at its start; see {log}")
        record(process)
        os.write(child.stdin.fileno(), b"go\n")
    except BrokenPipeError:
        raise ClusterError(f"{command[0]} ended at its start; see {log}") from None
    finally:
        child.stdin.close()
    return process


def wait_for_end(pid: int) -> None:
    """Until the process has ended, also when it had before. On a pidfd (pidfd_open(2)): it costs nothing meanwhile, and
    no other process is taken for this one."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([pidfd], [], [])
    finally:
        os.close(pidfd)


def wait_for_go() -> bool:
    """The child's half of :func:`start_detached`; False when its starter is gone."""
    return os.read(0, 16) == b"go\n"
