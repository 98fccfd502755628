"""``make bench-peer``: a DRA driver with NVIDIA's command line and ours, on one real node in one run.

The peer's program is the user's to bring. Without one, ours alone is measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import grpc

from dra_driver.kube.connect import connect
from dra_driver.kube.interface import ApiError
from e2e.bench.pods import PodBench
from e2e.bench_peer.claims import Claims
from e2e.bench_peer.comparison import Seen
from e2e.bench_peer.drivers import Driver, Ours, Peer
from e2e.bench_peer.figures import Figures
from e2e.bench_peer.node import PROGRAMS, BenchNode
from e2e.bench_peer.plan import DIFFERENCES, EVERY_ROUND, NAMES, ONCE, Turn, chosen, turns
from e2e.bench_peer.registrations import Registrations
from e2e.bench_peer.report import table
from e2e.bench_peer.serving import Run, serving
from e2e.clusters import programs
from e2e.clusters.interface import ClusterError
from e2e.clusters.local.cluster import LocalCluster
from e2e.kit.bench_cluster import bench_cluster
from e2e.kit.kubectl import KubectlError
from tests.bench.calls import CallFailed

_MACHINE = "h100-sxm5-80gb"
_CLUSTER = "bench-peer"
_ROUNDS = 3
# AssertionError: a watch that broke, or what did not come in time.
_FAILURES = (ApiError, AssertionError, CallFailed, ClusterError, KubectlError, OSError, grpc.RpcError)


def main(arguments: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(arguments)
    names = tuple(name for name in flags.cases.split(",") if name)
    if unknown := [name for name in names if name not in NAMES]:
        print(f"no such case: {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    if flags.peer is not None and not os.access(flags.peer, os.X_OK):
        print(f"{flags.peer} is no program: PEER is the path of a gpu-kubelet-plugin", file=sys.stderr)
        return 2
    drivers: list[Driver] = [Ours(PROGRAMS)]
    if flags.peer is not None:
        drivers.insert(0, Peer(flags.peer.absolute()))
    began, load = time.monotonic(), os.getloadavg()[0]
    failure = ""
    run: Run | None = None
    try:
        with bench_cluster(_CLUSTER, kubernetes=flags.kubernetes, machine=_MACHINE) as cluster:
            run = prepared(cluster)
            for driver in drivers:
                _check_runs_there(run.node, driver)
            measure(run, drivers, names, flags.rounds)
    except _FAILURES as error:
        failure = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    except KeyboardInterrupt:
        failure = "interrupted"
    if run is not None and run.figures.lines:
        print(_printed(run))
        print(f"{time.monotonic() - began:.0f} s; load average {load:.2f} before, {os.getloadavg()[0]:.2f} after")
    if failure:
        print(f"e2e.bench_peer ended early, its cluster is taken down: {failure}", file=sys.stderr)
    return 1 if failure else 0


def prepared(cluster: LocalCluster) -> Run:
    """A node with simulated GPUs, and what is asked of the drivers."""
    api = connect(str(cluster.kubeconfig))
    node = BenchNode(cluster, api)
    node.make_machine()
    pods = PodBench(api, cluster)
    pods.prepare()
    return Run(node, Claims(api, node.name), pods, Registrations(node.kubelet_log))


def measure(run: Run, drivers: Sequence[Driver], names: Sequence[str], rounds: int) -> None:
    """All rounds. Before them each driver is started once for nothing: programs, libraries and bytecode are in memory
    and on disk then, as they are on a node where the driver was started before."""
    for turn in turns(chosen(["publication"], EVERY_ROUND[:1]), drivers):
        _take(replace(run, figures=Figures(), seen=Seen()), turn, "for nothing")
    for number in range(rounds):
        for turn in turns(chosen(names, EVERY_ROUND), drivers):
            _take(run, turn, f"round {number + 1} of {rounds}")
    for turn in turns(chosen(names, ONCE), drivers):
        _take(run, turn, "once")
    for setting in dict.fromkeys(case.setting for case in chosen(names, EVERY_ROUND)):
        if setting.peer_problem:
            run.figures.note(f"{setting.name}: the peer cannot be run here: {setting.peer_problem}")


def _take(run: Run, turn: Turn, when: str) -> None:
    with serving(run, turn.driver, turn.setting) as found:
        for case in turn.cases:
            began = time.monotonic()
            case.measure(found)
            took = time.monotonic() - began
            print(f"{when}: {turn.driver.side}, {turn.setting.name}: {case.name} {took:.1f} s", file=sys.stderr)


def _check_runs_there(node: BenchNode, driver: Driver) -> None:
    program = Path(driver.plugin(EVERY_ROUND[0].setting, node.around).command[0])
    if not node.can_run(program):
        raise ClusterError(
            f"{program} is no program that the node can run; it sees this machine's files, but not what is below "
            "/run and /var/lib"
        )


def _printed(run: Run) -> str:
    notes = [f"note: {note}" for note in run.figures.notes]
    return "\n".join([table(run.figures.with_differences(DIFFERENCES)), "", *notes, *run.seen.lines()])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m e2e.bench_peer",
        description="Measures two DRA drivers on one real node in turns, and compares what they publish and write.",
        epilog=textwrap.dedent(
            f"""\
            cases: {", ".join(NAMES)}

              make bench-peer PEER=/path/to/gpu-kubelet-plugin
              make bench-peer PEER=... CASES=prepare,idle ROUNDS=1     about a minute
            """
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peer", type=Path, metavar="PROGRAM", help="a gpu-kubelet-plugin; without it, ours alone")
    parser.add_argument("--rounds", type=_count, default=_ROUNDS, metavar="N", help=f"how often each ({_ROUNDS})")
    parser.add_argument("--cases", default="", metavar="A,B", help="only these; see below")
    parser.add_argument("--kubernetes", default=programs.NEWEST_KUBERNETES, metavar="MINOR")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of rounds; 1 is the least")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
