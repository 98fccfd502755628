"""The table that benchmarks print: one run's figures and this project's aims, and nobody else's figures."""

from __future__ import annotations

import math
from pathlib import Path

from e2e.bench_peer.report import BOTH
from tests.bench.report import HEADER, Row, nearest_rank, table

PAGE = Path(__file__).resolve().parents[2] / "docs/dev/performance.md"


def test_a_table_has_median_p95_and_whether_the_aim_holds() -> None:
    rows = [Row("quick", [1.0, 2.0, 9.0], "ms", 3.0), Row("large", [61.0], "MiB", 60.0), Row("told", [1.0], "s")]
    assert table(rows).splitlines() == [
        "| case  | n | median / p95 | aim     |",
        "|-------|---|--------------|---------|",
        "| quick | 3 | 2 / 9 ms     | < 3 yes |",
        "| large | 1 | 61 MiB       | < 60 NO |",
        "| told  | 1 | 1 s          |         |",
    ]


def test_quantiles_are_by_nearest_rank() -> None:
    assert [nearest_rank([3.0, 1.0, 2.0, 4.0], share) for share in (0.0, 0.5, 0.75, 0.99)] == [1.0, 2.0, 3.0, 4.0]
    assert math.isnan(nearest_rank([], 0.5))


def test_the_page_has_the_tables_as_they_are_printed() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| case ")]
    headers = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert headers == [BOTH, HEADER, HEADER], "the two drivers, the controller alone, the embedded cluster"
