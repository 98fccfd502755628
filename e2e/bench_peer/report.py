"""The table that a run prints: median and 95th percentile of both sides, and ours over theirs. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from e2e.bench_peer.drivers import Side
from e2e.bench_peer.figures import Samples
from tests.bench.report import Row, aligned

BOTH = ["case", "peer: median / p95", "ours: median / p95", "ours/peer", "n peer, ours"]
ALONE = ["case", "ours: median / p95", "n"]


def table(lines: Sequence[Samples]) -> str:
    """Of both sides; of ours alone where there is nothing of the peer."""
    if any(Side.PEER in line.of for line in lines):
        return aligned([BOTH, *map(_both, lines)])
    return aligned([ALONE, *map(_alone, lines)])


def ratio(line: Samples) -> float | None:
    """Our median over the peer's; None where one is missing or the peer's is nothing."""
    peer, ours = (_row(line, side) for side in Side)
    return None if peer is None or ours is None or peer.median == 0 else ours.median / peer.median


def _both(line: Samples) -> list[str]:
    found = ratio(line)
    counts = ", ".join(str(len(line.of.get(side, ()))) for side in Side)
    return [line.case, *(_figure(line, side) for side in Side), "" if found is None else f"{found:.2f}", counts]


def _alone(line: Samples) -> list[str]:
    return [line.case, _figure(line, Side.OURS), str(len(line.of.get(Side.OURS, ())))]


def _figure(line: Samples, side: Side) -> str:
    row = _row(line, side)
    return "-" if row is None else row.figure


def _row(line: Samples, side: Side) -> Row | None:
    values = line.of.get(side)
    return Row(line.case, values, line.unit) if values else None
