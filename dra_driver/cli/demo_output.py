"""How the demo talks: a live table at a terminal, one line per change everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from dra_driver.cli.demo_rows import PodRow

_HEADINGS = ("POD", "NODE", "PHASE", "EXPECTED", "", "DEVICES")
_STYLES = {"ok": "green", "missed": "red", "...": "dim"}


class Output(Protocol):
    """Between start and stop; times are seconds since start."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def step(self, text: str) -> None:
        """Something happened."""
        ...

    def update(self, rows: Sequence[PodRow]) -> None:
        """The pods as they are now; may be called often."""
        ...

    def result(self, rows: Sequence[PodRow]) -> None:
        """The pods at the end."""
        ...


def make_output() -> Output:
    return LiveOutput(Console()) if sys.stdout.isatty() else PlainOutput()


class PlainOutput:
    """Lines without colour, for pipes and CI logs; a pod gets a line whenever it changes."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._seen: dict[str, PodRow] = {}

    def start(self) -> None:
        self._began = time.monotonic()

    def stop(self) -> None:
        sys.stdout.flush()

    def step(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", flush=True)

    def update(self, rows: Sequence[PodRow]) -> None:
        for row in rows:
            before = self._seen.get(row.pod)
            if before is None or (before.phase, before.node, before.message) != (row.phase, row.node, row.message):
                self._seen[row.pod] = row
                if before is not None or row.phase != "Pending":
                    self.step(_line(row))

    def result(self, rows: Sequence[PodRow]) -> None:
        print("\n" + "\n".join(text for text, _ in _report(rows)) + "\n", flush=True)


class LiveOutput:
    """A table that is drawn over again while pods change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True)
        self._began = time.monotonic()

    def start(self) -> None:
        self._began = time.monotonic()
        self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def step(self, text: str) -> None:
        self._console.print(
            f"{time.monotonic() - self._began:6.1f} s  {text}", markup=False, highlight=False, soft_wrap=True
        )

    def update(self, rows: Sequence[PodRow]) -> None:
        self._live.update(_table(rows))

    def result(self, rows: Sequence[PodRow]) -> None:
        self._live.update("", refresh=True)
        self._console.print()
        for text, style in _report(rows):
            self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
        self._console.print()


def _table(rows: Sequence[PodRow]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        pod, node, phase, expected, verdict, devices = _cells(row)
        table.add_row(pod, node, phase, expected, f"[{_STYLES[verdict]}]{verdict}[/]", devices)
    return table


def _report(rows: Sequence[PodRow]) -> Iterator[tuple[str, str]]:
    """The lines of the final table, each with its style."""
    cells = [_cells(row) for row in rows]
    widths = [max(len(line[column]) for line in [_HEADINGS, *cells]) for column in range(len(_HEADINGS))]
    yield _columns(_HEADINGS, widths), "bold"
    for row, line in zip(rows, cells, strict=True):
        yield _columns(line, widths), _STYLES[row.verdict]
        for detail in _details(row):
            yield f"    {detail}", ""


def _cells(row: PodRow) -> tuple[str, ...]:
    return row.pod, row.node, row.phase, row.expected, row.verdict, _devices(row)


def _line(row: PodRow) -> str:
    if row.node == "-":
        return f"{row.pod}: {row.phase}{': ' + row.message if row.message else ''}"
    return f"{row.pod}: {row.phase} on {row.node}{' with ' + _devices(row) if row.devices else ''}"


def _details(row: PodRow) -> list[str]:
    if row.sees and row.phase != "Pending":
        return list(row.sees)
    return [f"waits: {row.message}"] if row.message else []


def _devices(row: PodRow) -> str:
    """Device names; the pool is the node's, which has its own column, unless it is another one."""
    names = [device.removeprefix(f"{row.node}/") for device in row.devices]
    if len(names) > 3:
        return f"{names[0]} ... {names[-1]} ({len(names)})"
    return " ".join(names) or "-"


def _columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
