"""What a measurement yields and how the table is printed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``values`` are all samples, in ``unit``; ``limit`` is what this project holds itself to."""

    case: str
    values: Sequence[float]
    unit: str
    limit: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p95(self) -> float:
        """The nearest-rank 95th percentile; with few samples it is the maximum."""
        return sorted(self.values)[math.ceil(0.95 * len(self.values)) - 1]

    @property
    def holds(self) -> bool | None:
        return None if self.limit is None else self.median < self.limit

    def cells(self) -> list[str]:
        figure = f"{self.median:.3g} / {self.p95:.3g}" if len(self.values) > 1 else f"{self.median:.3g}"
        limit = "" if self.limit is None else f"< {self.limit:g} {'yes' if self.holds else 'NO'}"
        return [self.case, str(len(self.values)), f"{figure} {self.unit}", limit]


HEADER = ["case", "n", "median / p95", "aim"]


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, aligned so that it reads well in a terminal too."""
    lines = [HEADER, *[row.cells() for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    texts = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines]
    texts.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(texts)
