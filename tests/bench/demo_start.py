"""One start of the embedded cluster, in a process of its own: ``python -m tests.bench.demo_start MACHINE``.

Prints the :class:`Figures` as JSON once all devices are published, and takes the cluster down.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from dra_driver.cli.demo_cleanup import count_published
from dra_driver.simulation.cluster import EmbeddedCluster
from tests.bench.process import cpu_ms

_NODES: Final = 2  # as many as `gpu-dra demo` has of these machines
_LONGEST_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Figures:
    """``published_s``: start until every node's devices are published. Processor time until then, in seconds, of the
    process with the API server, the controller, and both plugins together."""

    devices: int
    published_s: float
    cluster_s: float
    controller_s: float
    plugins_s: float

    @property
    def cpu_s(self) -> float:
        return self.cluster_s + self.controller_s + self.plugins_s


def measure(machine: str, folder: Path) -> Figures:
    """Raises ClusterNotReadyError and ProcessDiedError when the cluster does not come up."""
    cpu, began = time.process_time(), time.perf_counter()
    cluster = EmbeddedCluster(machine, _NODES, folder)
    try:
        cluster.start()
        cluster.wait_until_ready(_LONGEST_SECONDS)
        published = time.perf_counter() - began
        own = time.process_time() - cpu
        others = {name: cpu_ms(pid) / 1000 for name, pid in cluster.pids.items()}
        devices = count_published(cluster.api)
    finally:
        cluster.stop()
    controller = others.pop("controller")
    return Figures(devices, published, own, controller, sum(others.values()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="gpu-dra-bench-") as place:
        print(json.dumps(asdict(measure(sys.argv[1], Path(place) / "cluster"))))
