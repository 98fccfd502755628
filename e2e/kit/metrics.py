"""The driver's own counters, read through the API server's proxy to its pods."""

from __future__ import annotations

import re

from e2e.install import NAMESPACE
from e2e.kit.kubectl import KubectlError
from e2e.kit.stage import Stage

_PORT = 8080
_FAILED = re.compile(r"^nvidia_dra_node_prepare_errors_total\{([^}]*)\} ([0-9.e+]+)$", re.MULTILINE)


def prepare_errors(stage: Stage) -> list[str]:
    """Failed prepares that today's plugins have counted. Pods whose port the API server cannot reach are passed over:
    a NetworkPolicy may say so, and Events tell of failures too."""
    found = []
    for pod in stage.pods.plugins():
        name = pod["metadata"]["name"]
        try:
            text = stage.kubectl.run(
                "get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}:{_PORT}/proxy/metrics"
            )
        except KubectlError:
            continue
        found += [f"{name}: {line}" for line in failed_prepares(text)]
    return found


def failed_prepares(metrics: str) -> list[str]:
    """``labels: count`` of each counter that is not 0, from the exposition's text."""
    return [f"{labels}: {count}" for labels, count in _FAILED.findall(metrics) if float(count)]
