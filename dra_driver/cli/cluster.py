"""The cluster that a command asks: a kubeconfig's, or the demo that was left up."""

from __future__ import annotations

from pathlib import Path

from dra_driver.cli import kept
from dra_driver.errors import DriverError
from dra_driver.kube.connect import connect
from dra_driver.kube.interface import KubeApi

_NO_CLUSTER = "no demo is up; start one with `gpu-dra demo --keep`, or name a cluster with --kubeconfig"


def connect_or_demo(kubeconfig: Path | None) -> KubeApi:
    """Raises DriverError when there is no such file, or no demo either."""
    if kubeconfig is not None:
        return connect(str(kubeconfig))
    demo = kept.read()
    if demo is None:
        raise DriverError(_NO_CLUSTER)
    return connect(demo.kubeconfig)
