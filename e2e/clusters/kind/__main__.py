"""``python -m e2e.clusters.kind up | down | status | exec NODE CMD... | kubectl ...``"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from e2e.clusters.interface import ClusterError
from e2e.clusters.kind import lifecycle
from e2e.clusters.kind.cluster import KindCluster, engine_of
from e2e.clusters.kind.state import StateFolder
from e2e.clusters.kind.tools import kubectl_program
from e2e.clusters.processes import wait_for_end, wait_for_go
from e2e.clusters.runner import Runner

_GUARD_PATIENCE = 900.0  # a creation that is under way ends, and then is taken down


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.clusters.kind", description="A kind cluster for gpu-dra.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="create the cluster")
    up.add_argument("--kubernetes", default="", metavar="1.37", help="without Docker: the minor to build")
    up.add_argument("--nodes", type=int, default=0, metavar="N", help="worker nodes (0: the control plane runs pods)")
    up.add_argument("--machine", metavar="NAME", help="the machine that the driver is to simulate on each node")
    up.add_argument("--image-archive", type=Path, metavar="FILE", help="images to load, the driver's first")
    up.add_argument("--node-image", metavar="IMAGE", help="with Docker: another kindest/node than kind's default")
    up.add_argument("--config", type=Path, default=lifecycle.CONFIGURATION, metavar="FILE", help="kind configuration")
    up.add_argument("--with", dest="guarded", type=int, metavar="PID", help="take it down when this process ends")
    daemon = up.add_mutually_exclusive_group()
    daemon.add_argument("--own-daemon", dest="own_daemon", action="store_const", const=True, help="never use Docker's")
    daemon.add_argument("--docker", dest="own_daemon", action="store_const", const=False, help="only Docker's daemon")
    down = commands.add_parser("down", help="remove the cluster and everything started for it")
    down.add_argument("--purge", action="store_true", help="the files of our own daemon too")
    status = commands.add_parser("status", help="say what there is")
    run = commands.add_parser("exec", help="run a command on a node")
    run.add_argument("node")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="CMD")
    kubectl = commands.add_parser("kubectl", help="kubectl ARGUMENTS..., with the cluster's access")
    guard = commands.add_parser("guard", help="wait until a process ends, then down")
    guard.add_argument("pid", type=int)
    for command in (up, down, status, run, kubectl, guard):
        command.add_argument("--name", default=lifecycle.DEFAULT_NAME)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    ours, words = _split(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(ours)
    signal.signal(signal.SIGTERM, _end)
    try:
        match options.command:
            case "up":
                _up(options)
            case "down":
                lifecycle.down(options.name, keep_images=not options.purge)
            case "status":
                print(_status(options.name))
            case "exec":
                cluster = KindCluster.attach(options.name)
                terminal = ["--tty"] if sys.stdin.isatty() else []
                cluster.engine.replace_process(["docker", "exec", "-i", *terminal, options.node, *options.words])
            case "kubectl":
                cluster = KindCluster.attach(options.name)
                kubectl = Runner(environment={"KUBECONFIG": str(cluster.kubeconfig)})
                kubectl.replace_process([kubectl_program(cluster.state.kubernetes), *words])
            case "guard":
                _guard(options.pid, options.name)
    except ClusterError as error:
        print(f"kind: {error}", file=sys.stderr)
        return 1
    return 0


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our arguments and, after ``kubectl [--name NAME]``, kubectl's: argparse would take its flags for ours."""
    ours, theirs = list(arguments), list[str]()
    if ours[:1] == ["kubectl"] and ours[1:2] not in (["-h"], ["--help"]):
        end = 3 if ours[1:2] == ["--name"] else 2 if ours[1:2] and ours[1].startswith("--name=") else 1
        ours, theirs = ours[:end], ours[end:]
    return ours, theirs


def _up(options: argparse.Namespace) -> None:
    cluster = lifecycle.up(
        lifecycle.Wanted(
            name=options.name,
            kubernetes=options.kubernetes,
            workers=options.nodes,
            machine=options.machine,
            image_archive=options.image_archive,
            node_image=options.node_image,
            own_daemon=options.own_daemon,
            configuration=options.config,
            guarded=options.guarded,
        )
    )
    print(f"export KUBECONFIG={cluster.kubeconfig}")


def _status(name: str) -> str:
    """One line; a cluster that is broken says so."""
    folder = StateFolder.of(name)
    state = folder.read()
    if state is None:
        return f"{name}: none"
    if not state.ready:
        return f"{name}: being created, or its creation was killed (then: down)"
    try:
        engine = engine_of(folder, state)
    except ClusterError as error:
        return f"{name}: broken: {error}"
    running = engine.run(["docker", "ps", "--format", "{{.Names}}"]).split()
    stopped = [node for node in state.nodes if node not in running]
    where = "a daemon of its own" if state.own_daemon else "Docker"
    text = f"{name}: Kubernetes {state.kubernetes} in {where}, nodes {' '.join(state.nodes)}, {folder.kubeconfig}"
    return text + (f", stopped: {' '.join(stopped)}" if stopped else "")


def _guard(pid: int, name: str) -> None:
    if not wait_for_go():
        return
    wait_for_end(pid)
    lifecycle.down(name, patience=_GUARD_PATIENCE)


def _end(number: int, _: FrameType | None) -> None:
    # As an exception, so that a creation under way takes down what it has begun.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
