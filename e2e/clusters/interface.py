"""What a suite may ask of a cluster, whichever it is.

Everything that goes through the Kubernetes API goes through ``kubeconfig``. What needs a hand on the node is a method
here; a cluster that has no such hand says so in ``abilities``, and the tests that need it are skipped by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Ability(StrEnum):
    """What a suite can do to a cluster beside its API."""

    RUN_ON_NODE = "run commands on a node"
    RESTART_KUBELET = "restart a kubelet"
    REBOOT_NODE = "reboot a node"


class ClusterError(Exception):
    """A cluster could not be brought up, changed or taken down; the message says what failed and where its logs are."""


class Cluster(Protocol):
    """A running cluster. Methods raise :class:`ClusterError`; one that the cluster has no ability for raises too."""

    @property
    def name(self) -> str: ...

    @property
    def kubeconfig(self) -> Path:
        """Administrator's access, usable from this process."""
        ...

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that run pods."""
        ...

    @property
    def abilities(self) -> frozenset[Ability]: ...

    @property
    def simulated_machine(self) -> str | None:
        """The machine that the driver should simulate on each node; None where the nodes have GPUs of their own."""
        ...

    @property
    def image(self) -> str | None:
        """The driver's image as the nodes have it loaded; None when the chart's own setting is to be used."""
        ...

    def run_on_node(self, node: str, command: Sequence[str], *, timeout: float = 60.0) -> str:
        """Run as root on ``node``; returns its standard output. A non-zero exit raises with both outputs."""
        ...

    def restart_kubelet(self, node: str) -> None:
        """Stop the kubelet with SIGTERM and start it again; returns when the new process has started."""
        ...

    def reboot(self, node: str) -> None:
        """Restart the whole node; returns when its kubelet is started, not when it is Ready."""
        ...

    def load_image(self, archive: Path) -> None:
        """Make the images of an OCI archive known to every node."""
        ...

    def collect_logs(self, folder: Path) -> None:
        """Copy the logs of everything that is no pod (kubelet, container runtime, control plane) into ``folder``."""
        ...
