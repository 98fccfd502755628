"""The local cluster of a benchmark's own: new, with what every driver wants of it, and taken away again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from e2e.clusters.interface import ClusterError
from e2e.clusters.local.cluster import LocalCluster, session
from e2e.kit.kubectl import find_kubectl

_DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@contextlib.contextmanager
def bench_cluster(name: str, *, kubernetes: str, machine: str, nodes: int = 1) -> Iterator[LocalCluster]:
    """With CRDs and DeviceClasses, and no driver. Raises ClusterError, also when one of that name is up, and
    KubectlError."""
    if LocalCluster.attach(name) is not None:
        down = f"python -m e2e.clusters.local --name {name} down"
        raise ClusterError(f"cluster {name} is up: another run? `{down}` takes it down")
    with session(kubernetes=kubernetes, nodes=nodes, machine=machine, name=name) as cluster:
        kubectl = find_kubectl(kubernetes, cluster.kubeconfig)
        for what in ("crds", "deviceclasses.yaml"):
            kubectl.run("apply", "--server-side", "-f", str(_DEPLOY / what))
        yield cluster
