"""What making a MIG device for a claim costs: ``make bench`` runs it, ``python -m tests.bench.mig`` alone.

NVIDIA's figures are its software's share: its NVML was a C library that answers at once. Our simulated NVML is Python
with its state in a file, so its time is measured apart, call by call in this process, and subtracted. With a latency,
the rows show what waits for what.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from api.kubelet import dra_v1_pb2
from dra_driver.errors import DriverError
from dra_driver.hardware.nvml import binding
from dra_driver.simulation.hardware import faults
from tests.bench.calls import CALL_SECONDS
from tests.bench.node import BenchNode, place, serving
from tests.bench.report import Row, table
from tests.kubelet_plugin.prepare.node import claim, ref, result
from tests.kubelet_plugin.prepare.simulated_node import SimulatedNode

GPUS = range(8)
CREATE = "nvmlDeviceCreateGpuInstanceWithPlacement"
DESTROY = "nvmlGpuInstanceDestroy"

# Stands for hardware, which takes its time; short, so that the measurement is.
_LIKE_HARDWARE = 0.1
_SLOW_CREATE = 20.0


def one_at_a_time(node: BenchNode, count: int = 60) -> Iterator[Row]:
    """1g.10gb, MIG mode on and off included: nothing else is on the GPU."""
    prepares, unprepares = [], []
    for number in range(count):
        claims = _claims(node, [number % len(GPUS)])
        prepares.append(node.prepare(claims))
        unprepares.append(node.unprepare(claims))
    in_prepare, in_unprepare = simulation_share()
    yield Row("MIG 1g prepare with the simulated NVML", prepares, "ms")
    yield Row("  of it in the simulated NVML", in_prepare, "ms")
    ours = _without(prepares, in_prepare)
    yield Row("  the software's share", ours, "ms", 7.4)
    yield Row("MIG 1g unprepare with the simulated NVML", unprepares, "ms")
    yield Row("  of it in the simulated NVML", in_unprepare, "ms")
    ours = _without(unprepares, in_unprepare)
    yield Row("  the software's share", ours, "ms", 3.1)


class Stopwatch:
    """Stands in for the simulated library and adds up the time that its functions take."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.milliseconds = 0.0

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._library, name)

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.milliseconds += (time.perf_counter() - started) * 1000

        return timed


def simulation_share(count: int = 60) -> tuple[list[float], list[float]]:
    """Milliseconds in the library during prepares and unprepares of an engine in this process."""
    prepares: list[float] = []
    unprepares: list[float] = []
    with tempfile.TemporaryDirectory(prefix="gpu-dra-bench-") as folder:
        node = SimulatedNode(Path(folder), "h100-sxm5-80gb")
        watch = Stopwatch(binding.library())
        binding.replace(watch)
        engine = node.engine()
        for number in range(count):
            uid = f"u{number}"
            node.claims.add(claim(uid, result(f"gpu-{number % len(GPUS)}-mig-1g10gb-19-0")))
            for call, samples in ((engine.prepare, prepares), (engine.unprepare, unprepares)):
                watch.milliseconds = 0.0
                if isinstance(call([ref(uid)], timeout=CALL_SECONDS)[uid], DriverError):
                    raise RuntimeError("the engine failed")  # noqa: TRY004
                samples.append(watch.milliseconds)
        engine.stop()
        node.close()
    return prepares, unprepares


def _without(samples: list[float], share: list[float]) -> list[float]:
    """``samples`` less the median of ``share``: the two are not of the same calls."""
    return [sample - statistics.median(share) for sample in samples]


def in_parallel(node: BenchNode, state: Path, count: int = 10) -> Iterator[Row]:
    """Eight calls on eight GPUs beside one call, where creating and destroying take what it is about: time."""
    for function in (CREATE, DESTROY):
        faults.inject_latency(state, function, _LIKE_HARDWARE)
    ones, eights = [], []
    with ThreadPoolExecutor(len(GPUS)) as pool:
        for _ in range(count):
            (claim,) = claims = _claims(node, [0])
            ones.append(node.prepare([claim]))
            node.unprepare(claims)
            claims = _claims(node, GPUS)
            eights.append(_wall(pool, node, claims))
            list(pool.map(node.unprepare, [[claim] for claim in claims]))
    faults.clear_faults(state)
    took = f"create takes {_LIKE_HARDWARE:g} s"
    one = Row(f"MIG prepare, {took}", ones, "ms")
    yield one
    yield Row(f"8 parallel on 8 GPUs, {took}", eights, "ms", 2 * one.median)


def in_parallel_without_latency(node: BenchNode, count: int = 25) -> Row:
    samples = []
    with ThreadPoolExecutor(len(GPUS)) as pool:
        for _ in range(count):
            claims = _claims(node, GPUS)
            samples.append(_wall(pool, node, claims))
            list(pool.map(node.unprepare, [[claim] for claim in claims]))
    return Row("MIG prepare, 8 parallel on 8 GPUs", samples, "ms")


def beside_a_slow_gpu(node: BenchNode, state: Path) -> Iterator[Row]:
    """p99 of prepares on seven GPUs, undisturbed and while a create on the eighth takes 20 s. Runs alternate."""
    quiet, beside = [], []
    for _ in range(2):
        quiet += _for_a_while(node, _SLOW_CREATE * 0.9)
        faults.inject_latency(state, CREATE, _SLOW_CREATE, gpu=0)
        slow = _claims(node, [0])
        took: list[float] = []
        waiting = threading.Thread(target=lambda slow=slow, took=took: took.append(node.prepare(slow)))
        waiting.start()
        time.sleep(0.2)
        beside += _for_a_while(node, _SLOW_CREATE * 0.9)
        waiting.join()
        if took[0] < _SLOW_CREATE * 1000:
            raise RuntimeError(f"the slow create took {took[0]:.0f} ms only: nothing was measured")
        faults.clear_faults(state)
        node.unprepare(slow)
    yield Row("MIG prepare on 7 GPUs", quiet, "ms")
    yield Row(f"the same while GPU 0 creates for {_SLOW_CREATE:g} s", beside, "ms")
    yield Row("its p99 over the p99 before", [_p99(beside) / _p99(quiet)], "x", 1.5)


def _for_a_while(node: BenchNode, seconds: float) -> list[float]:
    samples: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        claims = _claims(node, [1 + len(samples) % (len(GPUS) - 1)])
        samples.append(node.prepare(claims))
        node.unprepare(claims)
    return samples


def _claims(node: BenchNode, gpus: range | list[int]) -> list[dra_v1_pb2.Claim]:
    return [node.allocated_claim(f"gpu-{minor}-mig-1g10gb-19-0") for minor in gpus]


def _wall(pool: ThreadPoolExecutor, node: BenchNode, claims: list[dra_v1_pb2.Claim]) -> float:
    started = time.perf_counter()
    list(pool.map(node.prepare, [[claim] for claim in claims]))
    return (time.perf_counter() - started) * 1000


def _p99(samples: list[float]) -> float:
    return sorted(samples)[int(0.99 * len(samples))]


def rows() -> Iterator[Row]:
    with (
        tempfile.TemporaryDirectory(prefix="gpu-dra-bench-") as folder,
        place(Path(folder)) as where,
        serving(where) as node,
    ):
        state = where.state
        yield from one_at_a_time(node)
        yield in_parallel_without_latency(node)
        yield from in_parallel(node, state)
        yield from beside_a_slow_gpu(node, state)


if __name__ == "__main__":
    print(table(list(rows())))
