"""How long `gpu-dra demo` takes until it has devices, for GPUs without and with dynamic MIG in turns:
``python -m tests.bench.demo [ROUNDS]``, a quarter of a minute for three rounds.

Each start is in a process of its own, from nothing. Processor time says more than the clock where others work too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from tests.bench import demo_start
from tests.bench.demo_start import Figures
from tests.bench.report import Row, table
from tests.run_guard import start_guard

WHOLE = "a100-sxm4-40gb"
PARTITIONED = "h100-sxm5-80gb"
ROUNDS = 10
NO_SLOWER = 1.2


def rows(rounds: int = ROUNDS) -> Iterator[Row]:
    """One start of each is before those that count: bytecode and files are warm then."""
    starts: dict[str, list[Figures]] = {WHOLE: [], PARTITIONED: []}
    for _ in range(1 + rounds):
        for machine, figures in starts.items():
            figures.append(start(machine))
    whole, partitioned = (starts[machine][1:] for machine in (WHOLE, PARTITIONED))
    for figures in (whole, partitioned):
        yield from _rows(figures)
    both = [Row("", [each.published_s for each in figures], "s").median for figures in (whole, partitioned)]
    yield Row("ratio of the medians", [both[1] / both[0]], "", NO_SLOWER)


def start(machine: str) -> Figures:
    command = [sys.executable, "-m", demo_start.__name__, machine]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Figures(**json.loads(done.stdout))


def _rows(figures: Sequence[Figures]) -> Iterator[Row]:
    yield Row(f"start to {figures[0].devices} devices published", [each.published_s for each in figures], "s")
    yield Row("  CPU until then", [each.cpu_s for each in figures], "s")
    yield Row("    of the API server's process", [each.cluster_s for each in figures], "s")
    yield Row("    of the controller", [each.controller_s for each in figures], "s")
    yield Row("    of both plugins", [each.plugins_s for each in figures], "s")


if __name__ == "__main__":
    _guard = start_guard()
    print(table(list(rows(*(int(text) for text in sys.argv[1:2])))))
