"""What sharing adds to a prepare: ``make bench`` runs it, ``python -m tests.bench.sharing`` alone.

Time slices are set by nvidia-smi, whose simulation is a Python program that has to start; its calls are counted apart,
by the plugin's own metric. MPS control daemons are the simulated ones, real processes that are made to take their time.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from api.claim_config import API_VERSION, SharingStrategy
from api.kubelet import dra_v1_pb2
from dra_driver.kube.interface import Obj
from dra_driver.simulation import contained
from dra_driver.simulation.hardware import faults
from tests.bench import fractions
from tests.bench.node import BenchNode, free_port, place, serving
from tests.bench.report import Row, table
from tests.bench.totals import Totals

GPUS = range(8)
_LONG: Obj = {"strategy": SharingStrategy.TIME_SLICING, "timeSlicingConfig": {"interval": "Long"}}
_MPS: Obj = {"strategy": SharingStrategy.MPS, "mpsConfig": {"defaultActiveThreadPercentage": 50}}
_ANSWER_SECONDS = 0.1
_WATCHED_SECONDS = 20.0  # of a start that never comes to its end; the supervisor gives up after 30 s
_SMI_SECONDS = re.compile(r"^gpu_dra_nvidia_smi_seconds_(sum|count)\{[^}]*\} (\S+)$", re.MULTILINE)


def time_slices(node: BenchNode, calls: Totals, count: int = 40) -> Iterator[Row]:
    """In turns with prepares of the same GPU without a configuration."""
    plain: list[float] = []
    sliced: list[float] = []
    in_smi: list[float] = []
    numbers: list[float] = []
    for number in range(count):
        device = f"gpu-{number % len(GPUS)}"
        claims = [node.allocated_claim(device)]
        plain.append(node.prepare(claims))
        node.unprepare(claims)
        claims = [node.allocated_claim(device, _config(_LONG))]
        before = calls.so_far()
        sliced.append(node.prepare(claims))
        after = calls.so_far()
        numbers.append(after[0] - before[0])
        in_smi.append(after[1] - before[1])
        node.unprepare(claims)
    if not all(numbers):
        raise RuntimeError("a prepare with time slices called no nvidia-smi: nothing was measured")
    base = statistics.median(plain)
    yield Row("prepare, one claim, no configuration", plain, "ms")
    yield Row("prepare with time slices", sliced, "ms")
    yield Row("  calls of nvidia-smi in it", numbers, "")
    yield Row("  of it in these calls", in_smi, "ms")
    rest = [whole - smi - base for whole, smi in zip(sliced, in_smi, strict=True)]
    yield Row("  what time slices add besides", rest, "ms", 15)


def mps(node: BenchNode, state: Path, count: int = 15) -> Iterator[Row]:
    """Daemons whose every answer takes its time: one claim, and eight on eight GPUs at once."""
    faults.inject_mps_fault(state, answer_seconds=_ANSWER_SECONDS)
    ones, gone, eights = [], [], []
    with ThreadPoolExecutor(len(GPUS)) as pool:
        for number in range(count):
            claims = _mps_claims(node, [number % len(GPUS)])
            ones.append(node.prepare(claims))
            gone.append(node.unprepare(claims))
        for _ in range(count):
            claims = _mps_claims(node, GPUS)
            started = time.perf_counter()
            list(pool.map(node.prepare, [[claim] for claim in claims]))
            eights.append((time.perf_counter() - started) * 1000)
            list(pool.map(node.unprepare, [[claim] for claim in claims]))
    faults.clear_faults(state)
    took = f"the daemon answers in {_ANSWER_SECONDS:g} s"
    one = Row(f"MPS prepare, {took}", ones, "ms", 500)
    yield one
    yield Row(f"MPS unprepare, {took}", gone, "ms")
    yield Row(f"8 parallel on 8 GPUs, {took}", eights, "ms", 2 * one.median)


def beside_a_start_that_hangs(node: BenchNode, state: Path) -> Iterator[Row]:
    """MPS prepares on seven GPUs, undisturbed and while the daemon of the eighth does not come up."""
    quiet = _for_a_while(node)
    faults.inject_mps_fault(state, gpu=0, hang=("start",))
    stuck = _mps_claims(node, [0])
    failures: list[str] = []
    waiting = threading.Thread(target=_prepare_in_vain, args=(node, stuck, failures))
    waiting.start()
    beside = _for_a_while(node)
    if not waiting.is_alive():
        raise RuntimeError(f"the start did not hang, nothing was measured: {failures}")
    waiting.join()
    faults.clear_faults(state)
    node.unprepare(stuck)
    yield Row("MPS prepare on 7 GPUs", quiet, "ms")
    yield Row("the same while a daemon's start hangs on GPU 0", beside, "ms")
    yield Row("its slowest over the slowest before", [max(beside) / max(quiet)], "x", 1.5)


def _prepare_in_vain(node: BenchNode, claims: list[dra_v1_pb2.Claim], failures: list[str]) -> None:
    try:
        node.prepare(claims)
    except RuntimeError as error:
        failures.append(str(error))


def _for_a_while(node: BenchNode) -> list[float]:
    samples: list[float] = []
    until = time.perf_counter() + _WATCHED_SECONDS
    while time.perf_counter() < until:
        claims = _mps_claims(node, [1 + len(samples) % (len(GPUS) - 1)])
        samples.append(node.prepare(claims))
        node.unprepare(claims)
    return samples


def _mps_claims(node: BenchNode, gpus: range | list[int]) -> list[dra_v1_pb2.Claim]:
    return [node.allocated_claim(f"gpu-{minor}", _config(_MPS)) for minor in gpus]


def _config(sharing: Obj) -> Obj:
    return {"apiVersion": API_VERSION, "kind": "GpuConfig", "sharing": sharing}


def rows() -> Iterator[Row]:
    port = free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpu-dra-bench-")))
        where = stack.enter_context(place(folder))
        has_mps = contained.is_possible()
        if has_mps:
            stack.enter_context(where.supervisor())
            where.wait_for_supervisor()
        node = stack.enter_context(serving(where, "--http-endpoint", f"127.0.0.1:{port}"))
        yield from time_slices(node, Totals(port, _SMI_SECONDS))
        if not has_mps:
            sys.stderr.write("MPS is not measured: this machine lets nobody but root have mounts of their own\n")
            return
        yield from mps(node, where.state)
        yield from beside_a_start_that_hangs(node, where.state)
    yield from fractions.rows()


if __name__ == "__main__":
    print(table(list(rows())))
