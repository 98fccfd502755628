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
        return nearest_rank(self.values, 0.95)

    @property
    def holds(self) -> bool | None:
        return None if self.limit is None else self.median < self.limit

    @property
    def figure(self) -> str:
        """Median and 95th percentile with their unit; of one sample, that."""
        figure = f"{self.median:.3g} / {self.p95:.3g}" if len(self.values) > 1 else f"{self.median:.3g}"
        return f"{figure} {self.unit}".rstrip()

    def cells(self) -> list[str]:
        limit = "" if self.limit is None else f"< {self.limit:g} {'yes' if self.holds else 'NO'}"
        return [self.case, str(len(self.values)), self.figure, limit]


def nearest_rank(values: Sequence[float], share: float) -> float:
    """The quantile ``share`` of ``values``; NaN of nothing."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


HEADER = ["case", "n", "median / p95", "aim"]


def table(rows: Sequence[Row]) -> str:
    return aligned([HEADER, *[row.cells() for row in rows]])


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its header first, aligned so that it reads well in a terminal too."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    texts = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines]
    texts.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(texts)
