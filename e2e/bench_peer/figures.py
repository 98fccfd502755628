"""What was measured, by case and side, over all rounds. Pure but for growing."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from e2e.bench_peer.drivers import Side


@dataclass(slots=True)
class Samples:
    """One line of the table: all samples of each side in ``unit``."""

    case: str
    unit: str
    of: dict[Side, list[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """A line below ``minuend``: its median less that of ``subtrahend``, ``scale`` times in ``unit``."""

    case: str
    minuend: str
    subtrahend: str
    unit: str
    scale: float = 1.0


@dataclass(slots=True)
class Figures:
    """Samples in the order in which their cases were first measured, and what is to be said beside them."""

    lines: dict[str, Samples] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, side: Side, case: str, unit: str, *values: float) -> None:
        line = self.lines.setdefault(case, Samples(case, unit))
        line.of.setdefault(side, []).extend(values)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def with_differences(self, differences: Iterable[Difference]) -> Sequence[Samples]:
        """All lines, each difference below its minuend, of the sides that have both."""
        found: list[Samples] = []
        for line in self.lines.values():
            found.append(line)
            found += [_difference(wanted, self.lines) for wanted in differences if wanted.minuend == line.case]
        return found


def _difference(wanted: Difference, lines: dict[str, Samples]) -> Samples:
    more, less = lines[wanted.minuend], lines.get(wanted.subtrahend)
    found = Samples(wanted.case, wanted.unit)
    for side, values in more.of.items():
        if less is not None and side in less.of:
            between = statistics.median(values) - statistics.median(less.of[side])
            found.of[side] = [between * wanted.scale]
    return found
