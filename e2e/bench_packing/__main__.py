"""``make bench-packing-e2e``: both packings of MIG devices on a real control plane, in one run, in turns.

There is no kubelet: pods are scheduled and never start, on nodes that are inventories of eight GPUs each.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from api.mig_policy import MigPacking
from dra_driver.kube.connect import connect
from dra_driver.kube.interface import ApiError
from e2e.bench_packing.bench import Bench, Plan
from e2e.bench_packing.figures import Sample, table
from e2e.clusters import programs
from e2e.clusters.interface import ClusterError
from e2e.kit.bench_cluster import bench_cluster
from e2e.kit.kubectl import KubectlError
from tests.bench.packing.products import WHOLE, product
from tests.bench.packing.traces import mixes

_CLUSTER = "bench-packing"
# AssertionError: a watch that broke, or what did not come in time.
_FAILURES = (ApiError, AssertionError, ClusterError, KubectlError, OSError)


def main(arguments: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(arguments)
    found = {mix.name: mix for mix in mixes(product(flags.machine)) if mix.shares and WHOLE not in mix.shares}
    if flags.mix not in found:
        print(f"no such mix: {flags.mix}; there are {', '.join(found)}", file=sys.stderr)
        return 2
    seconds, rounds = (20.0, 1) if flags.quick else (flags.seconds, flags.rounds)
    plan = Plan(flags.machine, found[flags.mix], flags.load, flags.rate, seconds)
    samples: dict[int, dict[MigPacking, list[Sample]]] = {}
    began, load, failure = time.monotonic(), os.getloadavg()[0], ""
    try:
        with bench_cluster(_CLUSTER, kubernetes=flags.kubernetes, machine=flags.machine, nodes=0) as cluster:
            bench = Bench(cluster, connect(str(cluster.kubeconfig)), plan)
            with bench.open():
                for nodes in sorted(flags.sizes):
                    bench.grow(nodes)
                    of_size = samples.setdefault(nodes, {packing: [] for packing in MigPacking})
                    for number in range(rounds):
                        # There and back, so that what drifts meanwhile falls on both.
                        for packing in list(MigPacking)[:: -1 if number % 2 else 1]:
                            of_size[packing].append(bench.run(packing, number))
    except _FAILURES as error:
        failure = f"{type(error).__name__}: {error}"
    except KeyboardInterrupt:
        failure = "interrupted"
    if any(all(of_size.values()) for of_size in samples.values()):
        print(table(samples))
        print(f"{time.monotonic() - began:.0f} s; load average {load:.2f} before, {os.getloadavg()[0]:.2f} after")
    if failure:
        print(f"e2e.bench_packing ended early, its cluster is taken down: {failure}", file=sys.stderr)
    return 1 if failure else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m e2e.bench_packing",
        description="Measures what packing MIG devices across GPUs costs on a real API server and kube-scheduler, "
        "beside packing them GPU by GPU.",
    )
    parser.add_argument("--sizes", type=_sizes, default=(1, 10, 100), metavar="N,N", help="numbers of nodes (1,10,100)")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="runs of each packing at each size (2)")
    parser.add_argument("--seconds", type=float, default=75.0, metavar="S", help="for how long pods come in a run (75)")
    parser.add_argument("--rate", type=float, default=4.0, metavar="R", help="pods a second (4), 100/nodes at most")
    parser.add_argument("--load", type=float, default=0.9, metavar="L", help="asked for, by what there is (0.9)")
    parser.add_argument("--machine", default="h100-sxm5-80gb", metavar="NAME", help="of which the nodes are")
    parser.add_argument("--mix", default="1g/2g/4g", help="of profiles (1g/2g/4g); without whole GPUs")
    parser.add_argument("--quick", action="store_true", help="one round of 20 s each: to see that it works")
    parser.add_argument("--kubernetes", default=programs.NEWEST_KUBERNETES, metavar="MINOR")
    return parser


def _sizes(text: str) -> tuple[int, ...]:
    found = [part for part in text.split(",") if part]
    if not found or not all(part.isdecimal() and int(part) for part in found):
        raise argparse.ArgumentTypeError(f"{text} are no numbers of nodes, such as 1,10")
    return tuple(map(int, found))


if __name__ == "__main__":
    sys.exit(main())
