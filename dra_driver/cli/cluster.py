"""The cluster that a command asks: a kubeconfig's, or the demo that was left up."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dra_driver.cli import kept
from dra_driver.errors import DriverError
from dra_driver.kube.connect import connect
from dra_driver.kube.interface import KubeApi

_NO_CLUSTER = "no demo is up; start one with `gpu-dra demo --keep`, or name a cluster with --kubeconfig or KUBECONFIG"
_DEMO_FIRST = "gpu-dra: asking the demo that is up, not KUBECONFIG; --kubeconfig names another cluster"


def connect_or_demo(kubeconfig: Path | None) -> KubeApi:
    """``kubeconfig``, else the demo that is up, else ``$KUBECONFIG``. Raises DriverError when there is none of them.

    The demo comes before the variable, which many people have set to their cluster for good; they are told.
    """
    if kubeconfig is not None:
        return connect(str(kubeconfig))
    demo = kept.read()
    given = os.environ.get("KUBECONFIG")
    if demo is None:
        if not given:
            raise DriverError(_NO_CLUSTER)
        return connect()
    if given and given != demo.kubeconfig:
        print(_DEMO_FIRST, file=sys.stderr)
    return connect(demo.kubeconfig)
