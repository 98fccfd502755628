"""``make bench``: what one prepare costs.

fsync is on and the claim is fetched from an API server in another process, as on a real node. Samples are milliseconds
unless the row says otherwise.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench import controller, demo, mig, sharing
from tests.bench.node import BenchNode, Place, place, serving
from tests.bench.report import Row, table
from tests.run_guard import start_guard

GPUS = range(8)
PACE = 0.3


def starts(where: Place, count: int = 10) -> Row:
    """Process start to the inventory being readable from the API server, each time from nothing."""
    samples = []
    for _ in range(count):
        started = time.perf_counter()
        with where.plugin() as plugin:
            where.wait_for_inventory(plugin)
            samples.append(time.perf_counter() - started)
        where.forget_inventory()
    return Row("process start to inventory visible", samples, "s", 1.0)


def paced(node: BenchNode, count: int = 40) -> Iterator[Row]:
    """One claim at a time with a pause, as a quiet node sees it."""
    prepares, unprepares = [], []
    for number in range(count):
        claims = node.allocated_claims([number % len(GPUS)])
        time.sleep(PACE)
        prepares.append(node.prepare(claims))
        time.sleep(PACE)
        unprepares.append(node.unprepare(claims))
    yield Row("prepare, one claim, paced", prepares, "ms", 8.2)
    yield Row("unprepare, one claim, paced", unprepares, "ms", 3.3)


def back_to_back(node: BenchNode, count: int = 50) -> Row:
    samples = []
    for number in range(count):
        claims = node.allocated_claims([number % len(GPUS)])
        samples.append(node.prepare(claims))
        node.unprepare(claims)
    return Row("prepare, back to back, default limits", samples, "ms", 12)


def repeated(node: BenchNode, count: int = 50) -> Row:
    claims = node.allocated_claims([0])
    node.prepare(claims)
    samples = [node.prepare(claims) for _ in range(count)]
    node.unprepare(claims)
    return Row("prepare of a prepared claim", samples, "ms", 3.8)


def batch(node: BenchNode, count: int = 25) -> Row:
    samples = []
    for _ in range(count):
        claims = node.allocated_claims(GPUS)
        samples.append(node.prepare(claims))
        node.unprepare(claims)
    return Row("prepare, 8 claims in one call", samples, "ms", 40)


def parallel(node: BenchNode, count: int = 25) -> Row:
    """Wall time until the last of 8 calls is answered."""
    samples = []
    with ThreadPoolExecutor(len(GPUS)) as pool:
        for _ in range(count):
            claims = node.allocated_claims(GPUS)
            started = time.perf_counter()
            list(pool.map(node.prepare, [[claim] for claim in claims]))
            samples.append((time.perf_counter() - started) * 1000)
            node.unprepare(claims)
    return Row("prepare, 8 parallel calls on 8 GPUs", samples, "ms", 100)


def memory_and_cpu(node: BenchNode, pairs: int = 1000, warm_up: int = 200) -> Iterator[Row]:
    """RSS growth counts from after a warm-up: allocators and caches fill first, a leak goes on."""
    _pairs(node, warm_up)
    before, cpu_before = node.plugin.rss_mib(), node.plugin.cpu_ms()
    _pairs(node, pairs)
    growth = (node.plugin.rss_mib() / before - 1) * 100
    cpu = (node.plugin.cpu_ms() - cpu_before) / pairs
    yield Row("RSS growth over 1,000 prepares", [growth], "%", 2)
    yield Row("CPU per prepare and unprepare", [cpu], "ms")


def _pairs(node: BenchNode, count: int) -> None:
    for number in range(count):
        claims = node.allocated_claims([number % len(GPUS)])
        node.prepare(claims)
        node.unprepare(claims)


def idle(node: BenchNode, seconds: float = 20) -> Row:
    time.sleep(seconds)
    return Row("RSS, idle 20 s after start", [node.plugin.rss_mib()], "MiB", 60)


def main() -> None:
    _guard = start_guard()
    with tempfile.TemporaryDirectory(prefix="gpu-dra-bench-") as folder, place(Path(folder)) as where:
        rows = [starts(where)]
        with serving(where) as node:
            rows.append(idle(node))
            rows.extend(paced(node))
            rows += [back_to_back(node), repeated(node), batch(node), parallel(node)]
            rows.extend(memory_and_cpu(node))
    print(table(rows))
    print(table(list(mig.rows())))
    print(table(list(sharing.rows())))
    print(table(list(demo.rows())))
    print(table(list(controller.rows())))


if __name__ == "__main__":
    main()
