"""``make bench-e2e``: a real node with the driver and eight simulated H100s, measured in one run.

What is compared is of one run: a pod with a claim and the same pod without.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence

from dra_driver.kube.connect import connect
from dra_driver.kube.interface import ApiError
from e2e.bench import restarts
from e2e.bench.pods import BY_MPS, SLICED, PodBench
from e2e.clusters import programs
from e2e.clusters.interface import Cluster, ClusterError
from e2e.clusters.local.cluster import session
from e2e.install import Driver
from e2e.kit.kubectl import KubectlError, find_kubectl
from e2e.kit.waiting import TimedOut
from tests.bench.report import Row, table

_MACHINE = "h100-sxm5-80gb"
_WARM_UP = 3


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m e2e.bench", description="Measures pods and restarts on a real node."
    )
    parser.add_argument("--kubernetes", default=programs.NEWEST_KUBERNETES, metavar="MINOR")
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds: to see that it works")
    flags = parser.parse_args(arguments)
    rows: list[Row] = []
    failure = ""
    try:
        with session(kubernetes=flags.kubernetes, machine=_MACHINE, name="bench") as cluster:
            for row in measure(cluster, flags.kubernetes, share=0.2 if flags.quick else 1.0):
                _say(f"measured: {row.case}")
                rows.append(row)
    except (ApiError, ClusterError, KubectlError, TimedOut, TimeoutError) as error:
        failure = f"{type(error).__name__}: {error}"
    if rows:
        print(table(rows))
    if failure:
        print(f"e2e.bench ended early, its cluster is taken down: {failure}", file=sys.stderr)
    return 1 if failure else 0


def measure(cluster: Cluster, kubernetes: str, share: float) -> Iterator[Row]:
    """All rows; ``share`` is the part of the rounds that are run."""
    api = connect(str(cluster.kubeconfig))
    kubectl = find_kubectl(kubernetes, cluster.kubeconfig)
    Driver(cluster, api).install()
    (node,) = cluster.nodes

    def rounds(count: int) -> int:
        return max(3, round(count * share))

    bench = PodBench(api, cluster)
    bench.prepare()
    bench.pairs(_WARM_UP)
    yield from _single_pods(bench, rounds(30))
    yield from _bursts(bench, rounds(10))
    yield from _shared(bench, rounds(10))
    back = restarts.kubelet_restarts(api, cluster, node, rounds(20))
    yield Row("kubelet restart to slices back", back, "s", 2.0)
    yield Row("the slowest of those", [max(back)], "s", 2.0)
    writes, registered = restarts.plugin_restarts(api, kubectl, node, rounds(10))
    yield Row("slice writes of a plugin restart, total", [sum(writes)], "", 1)
    yield Row("plugin start to registered", registered, "s")
    updating = restarts.rolling_update_writes(api, kubectl)
    yield Row("slice writes of a rolling update", [updating], "", 1)


def _single_pods(bench: PodBench, count: int) -> Iterator[Row]:
    without, having, gone = bench.pairs(count)
    difference = (statistics.median(having) - statistics.median(without)) * 1000
    yield Row("pod create to Ready, no claim", without, "s")
    yield Row("pod create to Ready, 1 GPU by template", having, "s")
    yield Row("difference of the medians", [difference], "ms", 120)
    yield Row("pod delete to claim and CDI file gone", gone, "s")


def _bursts(bench: PodBench, count: int) -> Iterator[Row]:
    without, having = bench.bursts(count, 8)
    for burst, word in ((having, "1 GPU each"), (without, "no claim")):
        yield Row(f"8 pods at once, {word}: first Ready", burst.first, "s")
        yield Row(f"8 pods at once, {word}: last Ready", burst.last, "s")
    if having.refused:
        _say(f"{having.refused} of {count} bursts: the API server first refused the kubelet a claim; the kubelet waits")


def _shared(bench: PodBench, count: int) -> Iterator[Row]:
    yield Row("pod create to Ready, time slices", bench.last_ready(count, 1, SLICED), "s")
    yield Row("pod create to Ready, MPS", bench.last_ready(count, 1, BY_MPS), "s")
    yield Row("8 pods at once, MPS on a GPU each: last Ready", bench.last_ready(count, 8, BY_MPS), "s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
