"""The commands of docs/user/migration.md, so that the suite runs what people are told to run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.clusters import programs
from e2e.clusters.runner import Runner
from e2e.install import CHART
from e2e.kit.kubectl import find_program
from e2e.kit.stage import Stage

PAGE = Path(__file__).resolve().parents[2] / "docs" / "user" / "migration.md"
_BLOCK = re.compile(r"^ *```\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SECONDS = 240.0


def commands(page: str) -> tuple[str, ...]:
    """Every line of every block."""
    return tuple(line.strip() for block in _BLOCK.findall(page) for line in block.splitlines())


def command(page: str, beginning: str) -> str:
    """The one command that begins so, however often it is given. Raises ValueError for none, or several."""
    (found,) = {line for line in commands(page) if line.startswith(beginning)}
    return found


@dataclass(frozen=True, slots=True)
class MigrationPage:
    """Runs single commands of the page, with what this cluster needs added to ``helm``."""

    stage: Stage

    def run(self, beginning: str, settings: Sequence[str] = ()) -> str:
        """Raises ClusterError, or KubectlError, when it fails."""
        words = shlex.split(command(PAGE.read_text(), beginning))
        kubectl = self.stage.kubectl
        if words[0] == "kubectl":
            return kubectl.run(*words[1:], timeout=_SECONDS)
        words = [str(CHART) if word == "deploy/chart/gpu-dra" else word for word in words]
        added = [argument for setting in settings for argument in ("--set", setting)]
        helm = find_program(programs.HELM, "helm")
        runner = Runner(environment={"KUBECONFIG": str(kubectl.kubeconfig)})
        return runner.run([str(helm), *words[1:], *added], timeout=_SECONDS)

    def run_on_node(self, node: str, beginning: str) -> str:
        return self.stage.cluster.run_on_node(node, shlex.split(command(PAGE.read_text(), beginning)))
