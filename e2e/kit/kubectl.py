"""kubectl, for what the project's own API client has no word for: exec, logs, describe, rollouts, tokens."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.clusters import programs
from e2e.clusters.interface import ClusterError
from e2e.clusters.runner import Runner


class KubectlError(Exception):
    """kubectl ended with an error; the message has its words."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """``program`` with the administrator's ``kubeconfig``."""

    program: Path
    kubeconfig: Path

    def run(self, *arguments: str, timeout: float = 60.0) -> str:
        """Standard output. Raises :class:`KubectlError`."""
        try:
            runner = Runner(environment={"KUBECONFIG": str(self.kubeconfig)})
            return runner.run([str(self.program), *arguments], timeout=timeout)
        except ClusterError as error:
            raise KubectlError(str(error)) from error

    def execute(
        self, namespace: str, pod: str, container: str, command: Sequence[str], *, timeout: float = 60.0
    ) -> str:
        """Run ``command`` in a container. Raises :class:`KubectlError`."""
        return self.run("-n", namespace, "exec", pod, "-c", container, "--", *command, timeout=timeout)


def find_kubectl(kubernetes: str, kubeconfig: Path) -> Kubectl:
    """The one built here for that minor, else the one on PATH, else it is built. Raises ClusterError."""
    return Kubectl(find_program(programs.kubernetes(_known(kubernetes)), "kubectl"), kubeconfig)


def find_program(module: programs.Module, name: str) -> Path:
    """``name``: built already, on PATH, or built now, in this order."""
    if built := programs.find(module):
        return built / name
    if found := shutil.which(name):
        return Path(found)
    return programs.ensure([module])[name]


def _known(kubernetes: str) -> str:
    """A kubectl serves the minors around its own, so any that can be built will do for a cluster of another one."""
    try:
        programs.kubernetes(kubernetes)
    except ClusterError:
        return programs.NEWEST_KUBERNETES
    return kubernetes
