"""The tables of docs/dev/packing.md, in Markdown that reads well in a terminal too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.bench.packing.measure import ALPHABETICAL, POLICIES, Comparison, Writes

_OTHERS = [name for name in POLICIES if name != ALPHABETICAL]


def work_table(comparisons: Iterable[Comparison]) -> str:
    return _table(
        ["GPU", "mix", *_OTHERS],
        [
            [entry.product.machine, entry.mix.name, *(str(entry.work(name)) for name in _OTHERS)]
            for entry in comparisons
        ],
    )


def blocked_table(comparisons: Iterable[Comparison]) -> str:
    rows = [
        [entry.product.machine, entry.mix.name, *(_percent(entry.blocked(name)) for name in POLICIES)]
        for entry in comparisons
        if entry.blocked(ALPHABETICAL) is not None
    ]
    return _table(["GPU", "mix", *POLICIES], rows)


def waiting_table(comparisons: Iterable[Comparison]) -> str:
    rows = [
        [
            entry.product.machine,
            entry.mix.name,
            entry.product.kinds[kind],
            *(f"{entry.wait(name, kind):.0f}" for name in POLICIES),
        ]
        for entry in comparisons
        for kind in entry.kinds()
    ]
    return _table(["GPU", "mix", "claim", *POLICIES], rows)


def writes_table(rows: Iterable[Writes]) -> str:
    cells = [[entry.mix.name, f"{60 * entry.lifetime:g} min", f"{entry.rate:.1f}", str(entry.work)] for entry in rows]
    return _table(["mix", "lifetime", "writes per GPU and hour", "work, %"], cells)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    texts = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines]
    texts.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(texts)
