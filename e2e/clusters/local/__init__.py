"""A real Kubernetes cluster on this machine, in private namespaces: no Docker, no registry, nothing installed.

Every machine of the cluster (``control``, ``node-0``, ``node-1`` ...) is a set of Linux namespaces with a small init in
it. ``control`` runs etcd and the control plane, each node containerd, kubelet and kube-proxy; a bridge connects them.

    machine       one set of namespaces: cgroups before, init inside, gone after
    init          process 1 of a machine: mounts, starts and stops components, reaps
    network       bridge and links between the machines
    settings      names, addresses and files of one cluster
    certificates  the cluster's authority and tokens
    components    command line and configuration files of each component
    cluster       order of bringing up and taking down
    guard         takes a cluster down when the process that wanted it is gone

Why each flag is what it is stands beside it; most were found on a machine without CAP_SYS_RESOURCE and with cgroup v1.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from e2e.clusters.interface import Cluster


def session(**chosen: Any) -> AbstractContextManager[Cluster]:
    """``cluster.session``; imported when called, since every machine's process 1 imports this package."""
    from e2e.clusters.local.cluster import session as opened

    return opened(**chosen)
