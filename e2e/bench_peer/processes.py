"""What the kernel counts of a process that is not ours: processor time and memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dra_driver.processes import Process
from tests.bench import process


@dataclass(frozen=True, slots=True)
class Measured:
    """One process on the node, by its id out here."""

    name: str
    process: Process

    def cpu_ms(self) -> float:
        """Processor time of all its threads so far. Raises ProcessLookupError when it has ended."""
        self._check()
        return process.cpu_ms(self.process.pid)

    def rss_mib(self) -> float:
        """Resident set size. Raises ProcessLookupError when it has ended."""
        self._check()
        return process.rss_mib(self.process.pid)

    def _check(self) -> None:
        if not self.process.alive:
            raise ProcessLookupError(f"{self.name} has ended")


def cpu_ms(processes: Iterable[Measured]) -> float:
    return sum(each.cpu_ms() for each in processes)


def less_idle(cpu: float, idle_per_second: float, seconds: float) -> float:
    """Of ``cpu``, which was counted over ``seconds``, what is not there without work."""
    return cpu - idle_per_second * seconds


def rss_mib(processes: Iterable[Measured]) -> float:
    return sum(each.rss_mib() for each in processes)


def seen_from_here(init: Process, pid: int) -> Process | None:
    """The child of ``init`` that has ``pid`` in their pid namespace (NSpid of proc_pid_status(5))."""
    for child in init.children():
        try:
            status = Path(f"/proc/{child.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        numbers = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
        if numbers and int(numbers[-1]) == pid:
            return child
    return None
