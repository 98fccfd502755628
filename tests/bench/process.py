"""Processes under measurement, and what the kernel says about them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Final

# Of another process, by clock_getcpuclockid(3): MAKE_PROCESS_CPUCLOCK and CPUCLOCK_SCHED of linux/posix-timers.h.
_CPU_CLOCK_OF_SCHEDULER: Final = 2


def rss_mib(pid: int) -> float:
    """Resident set size, MiB (VmRSS of proc_pid_status(5)). ProcessLookupError for one that has ended."""
    with contextlib.suppress(FileNotFoundError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {pid} has ended")


def cpu_ms(pid: int) -> float:
    """Processor time of all threads of a process so far, also of those that ended, exact to the nanosecond: the counter
    that /proc/PID/task/*/schedstat shows thread by thread. OSError for one that has ended."""
    return time.clock_gettime_ns((~pid << 3) | _CPU_CLOCK_OF_SCHEDULER) / 1e6


@dataclass
class Measured:
    """One child process with its log file. ``with Measured(...) as process:`` ends it by its pid.

    ``environment`` is added to ours. Bytecode is cached whatever ours says: compiling at each start costs 10 MiB.
    """

    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __enter__(self) -> Measured:
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **self.environment},
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(10)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def stdout(self) -> IO[str]:
        assert self._popen.stdout is not None
        return self._popen.stdout

    def check(self) -> None:
        """Raises RuntimeError with the log's end when the process is gone."""
        if self._popen.poll() is not None:
            raise RuntimeError(f"{self.command[2]} ended with {self._popen.returncode}: {self.log.read_text()[-2000:]}")

    def rss_mib(self) -> float:
        """See :func:`rss_mib`."""
        return rss_mib(self._popen.pid)

    def cpu_ms(self) -> float:
        """See :func:`cpu_ms`."""
        return cpu_ms(self._popen.pid)
