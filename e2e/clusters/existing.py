"""Any cluster that is up already: reached by its kubeconfig, never changed but through its API.

``KUBECONFIG`` names it. ``GPU_DRA_E2E_MACHINE`` makes the installed driver simulate GPUs on its nodes, and
``GPU_DRA_E2E_IMAGE`` (``repository:tag``) is the driver's image as its nodes can pull it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dra_driver.errors import ConfigError
from dra_driver.kube.connect import connect
from dra_driver.kube.interface import NODES, ApiError, Obj
from e2e.clusters.interface import Ability, Cluster, ClusterError

MACHINE_VARIABLE = "GPU_DRA_E2E_MACHINE"
IMAGE_VARIABLE = "GPU_DRA_E2E_IMAGE"


@dataclass(frozen=True, slots=True)
class ExistingCluster:
    """A cluster of somebody else; all that is done to it goes through its API."""

    kubeconfig: Path
    nodes: tuple[str, ...]
    simulated_machine: str | None
    image: str | None

    @property
    def name(self) -> str:
        return "existing"

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset()

    def run_on_node(self, node: str, command: Sequence[str], *, timeout: float = 60.0) -> str:
        _cannot(Ability.RUN_ON_NODE)

    def restart_kubelet(self, node: str) -> None:
        _cannot(Ability.RESTART_KUBELET)

    def reboot(self, node: str) -> None:
        _cannot(Ability.REBOOT_NODE)

    def load_image(self, archive: Path) -> None:
        raise ClusterError(f"images cannot be loaded into an existing cluster: push {archive.name} to its registry")

    def collect_logs(self, folder: Path) -> None:
        """Nothing: what is no pod cannot be reached through the API."""


@contextlib.contextmanager
def session(
    *, kubernetes: str = "", nodes: int = 1, machine: str | None = None, keep: bool = False
) -> Iterator[Cluster]:
    """The cluster of ``$KUBECONFIG``. It is what it is: ``kubernetes``, ``nodes`` and ``keep`` choose nothing here.

    Raises ClusterError when the cluster cannot be reached.
    """
    given = os.environ.get("KUBECONFIG")
    if not given:
        raise ClusterError("set KUBECONFIG to the kubeconfig of the existing cluster")
    path = Path(given.split(os.pathsep)[0]).expanduser()
    try:
        found = connect(str(path)).list(NODES).items
    except (ApiError, ConfigError) as error:
        raise ClusterError(f"the cluster of {path} cannot be used: {error}") from error
    yield ExistingCluster(
        kubeconfig=path,
        nodes=tuple(sorted(node["metadata"]["name"] for node in found if runs_pods(node))),
        simulated_machine=machine or os.environ.get(MACHINE_VARIABLE) or None,
        image=os.environ.get(IMAGE_VARIABLE) or None,
    )


def runs_pods(node: Obj) -> bool:
    """Whether ordinary pods are scheduled to it: not cordoned, and without a taint that keeps them off."""
    spec = node.get("spec") or {}
    taints = [taint for taint in spec.get("taints") or () if taint["effect"] in ("NoSchedule", "NoExecute")]
    return not spec.get("unschedulable") and all(taint["key"] == "nvidia.com/gpu" for taint in taints)


def _cannot(ability: Ability) -> NoReturn:
    raise ClusterError(f"an existing cluster gives no hand to {ability}")
