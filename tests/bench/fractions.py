"""What one more fraction of a GPU costs whose MPS group runs: ``make bench`` runs it, ``python -m tests.bench.fractions``
alone.

Driver 615: the fraction has a namespace. Plugin, supervisor and daemon are real processes. Each question to the daemon
is a run of nvidia-cuda-mps-control, whose simulation is a shell that speaks to a daemon in Python; the time of these
runs is the supervisor's own metric, and is taken away.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from api.kubelet import dra_v1_pb2
from dra_driver.kube.interface import NODE_INVENTORIES, Obj
from tests.bench.node import NODE, START_TIMEOUT, BenchNode, Place, free_port, place, serving
from tests.bench.report import Row, table
from tests.bench.totals import Totals

_DRIVER = "615.71.09"  # speaks MPS protocol 3
_RUNS = re.compile(r"^gpu_dra_mps_control_seconds_(sum|count) (\S+)$", re.MULTILINE)
_GPU = "gpu-0"
_AIM = 30.0  # milliseconds


def one_more(node: BenchNode, runs: Totals, count: int = 40) -> Iterator[Row]:
    """Beside a fraction that stays."""
    first = [_claim(node)]
    node.prepare(first)
    whole: dict[str, list[float]] = {"prepare": [], "unprepare": []}
    inside: dict[str, list[float]] = {"prepare": [], "unprepare": []}
    numbers: dict[str, list[float]] = {"prepare": [], "unprepare": []}
    for _ in range(count):
        claims = [_claim(node)]
        for what, call in (("prepare", node.prepare), ("unprepare", node.unprepare)):
            before = runs.so_far()
            whole[what].append(call(claims))
            after = runs.so_far()
            numbers[what].append(after[0] - before[0])
            inside[what].append(after[1] - before[1])
    node.unprepare(first)
    for what, taken in whole.items():
        if not all(numbers[what]):
            raise RuntimeError(f"the {what} of a fraction ran no nvidia-cuda-mps-control: nothing was measured")
        yield Row(f"{what} of one more fraction of a GPU", taken, "ms")
        yield Row("  runs of nvidia-cuda-mps-control in it", numbers[what], "")
        yield Row("  of it in these runs", inside[what], "ms")
        rest = [total - programs for total, programs in zip(taken, inside[what], strict=True)]
        yield Row("  the software's share", rest, "ms", _AIM)


def _claim(node: BenchNode) -> dra_v1_pb2.Claim:
    share: Obj = {"shareID": str(uuid.uuid4()), "consumedCapacity": {"memory": "1Gi", "compute": "5"}}
    return node.allocated_claim(_GPU, share=share)


def _configuration(where: Place) -> str:
    """YAML takes JSON."""
    file = where.folder / "fractions.yaml"
    spec: Obj = {"sharing": {"rules": [{"fractions": {}}]}}
    document = {"apiVersion": "gpu-dra.dev/v1alpha1", "kind": "DriverConfiguration", "spec": spec}
    file.write_text(json.dumps(document))
    return str(file)


def _wait_until_measured(where: Place) -> None:
    """The plugin starts MPS on each GPU once, to see what it takes of its memory."""
    deadline = time.monotonic() + 4 * START_TIMEOUT
    while time.monotonic() < deadline:
        machine = where.api.get(NODE_INVENTORIES, NODE)["status"]["machine"]
        if all(gpu.get("reserves") for gpu in machine["gpus"]):
            return
        time.sleep(0.1)
    raise RuntimeError(f"GPUs are not measured after {4 * START_TIMEOUT:g} s; see {where.folder}/plugin.log")


def rows() -> Iterator[Row]:
    port = free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpu-dra-bench-")))
        where = stack.enter_context(place(folder, _DRIVER))
        # Looks at daemons are runs of the program too; nobody looks meanwhile.
        stack.enter_context(where.supervisor("--http-endpoint", f"127.0.0.1:{port}", "--mps-canary-interval", "1h"))
        where.wait_for_supervisor()
        node = stack.enter_context(serving(where, "--config", _configuration(where)))
        _wait_until_measured(where)
        yield from one_more(node, Totals(port, _RUNS))


if __name__ == "__main__":
    print(table(list(rows())))
