"""The programs kind and kubectl that go with a cluster: ours where they are built, else the ones on PATH."""

from __future__ import annotations

import shutil

from e2e.clusters import programs
from e2e.clusters.interface import ClusterError


def kind_program() -> str:
    """kind, as modules/kind pins it; without Go, the one on PATH."""
    if programs.find(programs.KIND) is None and shutil.which("go") is None:
        if found := shutil.which("kind"):
            return found
        raise ClusterError("kind is not installed: install it (https://kind.sigs.k8s.io), or Go to have it built here")
    return str(programs.ensure([programs.KIND])["kind"])


def kubectl_program(version: str) -> str:
    """kubectl; nothing is built for it."""
    if version and version.split(".")[:2] in [minor.split(".") for minor in programs.kubernetes_minors()]:
        folder = programs.find(programs.kubernetes(".".join(version.split(".")[:2])))
        if folder is not None:
            return str(folder / "kubectl")
    found = shutil.which("kubectl")
    if found is None:
        raise ClusterError("kubectl is not on PATH: install it (https://kubernetes.io/docs/tasks/tools/)")
    return found
