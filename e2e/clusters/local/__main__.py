"""``python -m e2e.clusters.local``: bring the local cluster up with the driver in it, look, take it down."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from e2e.clusters import programs
from e2e.clusters.interface import ClusterError
from e2e.clusters.local.cluster import LocalCluster
from e2e.clusters.local.settings import ClusterSettings

_NAME = ClusterSettings().name
_MINORS = ", ".join(programs.kubernetes_minors())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m e2e.clusters.local", description="A local cluster with gpu-dra.")
    parser.add_argument("--name", default=_NAME, help=f"name of the cluster ({_NAME})")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring it up; it stays until `down`")
    up.add_argument(
        "--kubernetes", default=programs.NEWEST_KUBERNETES, help=f"{', '.join(programs.kubernetes_minors())}"
    )
    up.add_argument("--machine", default=ClusterSettings().machine, help="what nodes simulate: gpu-dra machine list")
    up.add_argument("--nodes", type=int, default=1, help="nodes that run pods, each with a kubelet of its own")
    commands.add_parser("down", help="take it down; leaves nothing")
    commands.add_parser("status", help="say what runs")
    run = commands.add_parser("exec", help="run a command on a node or `control`, in its namespaces")
    run.add_argument("node")
    run.add_argument("argv", nargs=argparse.REMAINDER)
    flags = parser.parse_args(arguments)
    try:
        return _COMMANDS[flags.command](flags)
    except ClusterError as error:
        print(f"{error}", file=sys.stderr)
        return 1


def _up(flags: argparse.Namespace) -> int:
    minor = ".".join(flags.kubernetes.split(".")[:2])
    settings = ClusterSettings(flags.name, minor, flags.nodes, flags.machine)
    cluster = LocalCluster.up(settings, say=print)
    print(f"\nexport KUBECONFIG={cluster.kubeconfig}")
    return 0


def _down(flags: argparse.Namespace) -> int:
    left = LocalCluster.down(flags.name)
    for line in left:
        print(f"left behind: {line}", file=sys.stderr)
    return 1 if left else 0


def _status(flags: argparse.Namespace) -> int:
    cluster = LocalCluster.attach(flags.name)
    if cluster is None:
        print(f"cluster {flags.name} is down")
        return 1
    print(f"{cluster.settings}\nKUBECONFIG={cluster.kubeconfig}\nlogs in {cluster.settings.logs}")
    for machine, components in cluster.running().items():
        print(f"{machine}: {', '.join(components)}")
    return 0


def _exec(flags: argparse.Namespace) -> int:
    cluster = LocalCluster.attach(flags.name)
    if cluster is None:
        raise ClusterError(f"cluster {flags.name} is down")
    command = [*cluster.enter_command(flags.node), *(flags.argv or ["sh"])]
    path = f"{Path(cluster.programs['ctr']).parent}:{Path(cluster.programs['kubectl']).parent}"
    environment = {**os.environ, "PATH": f"{path}:{os.environ.get('PATH', '')}"}
    os.execvpe(command[0], command, environment)  # noqa: S606 - no shell is wanted


_COMMANDS = {"up": _up, "down": _down, "status": _status, "exec": _exec}

if __name__ == "__main__":
    sys.exit(main())
