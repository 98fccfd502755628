"""The programs of a node image, as this repository builds them, and the digest of everything they are made from."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from e2e.clusters import programs
from e2e.clusters.interface import ClusterError


@dataclass(frozen=True, slots=True)
class NodePrograms:
    """Where each program lies; ``kind_files`` is images/base of kind's own source."""

    paths: dict[str, Path]
    version: str  # of Kubernetes: "1.37.2"
    digest: str
    kind_files: Path

    def __getitem__(self, name: str) -> Path:
        return self.paths[name]


def node_programs(kubernetes: str) -> NodePrograms:
    """Build what is missing (minutes, the first time) and name the rest."""
    release = programs.kubernetes(kubernetes)
    modules = [
        release,
        programs.CONTAINERD,
        programs.CNI,
        programs.ETCD,
        programs.CRICTL,
        programs.COREDNS,
        programs.PAUSE,
    ]
    paths = programs.ensure([*modules, programs.KIND])
    digest = hashlib.sha256()
    for module in [*modules, programs.KIND]:
        digest.update((module.target / ".stamp").read_bytes())
    return NodePrograms(paths, release.resolved_version, digest.hexdigest(), _kind_source() / "images" / "base")


def _kind_source() -> Path:
    """kind's module as Go has it unpacked; go.sum of modules/kind vouches for it."""
    module = programs.KIND
    answer = subprocess.run(
        ["go", "mod", "download", "-json", f"{module.requirement}@v{module.resolved_version}"],
        cwd=module.path,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise ClusterError(f"go mod download {module.requirement} failed: {answer.stdout}{answer.stderr}")
    return Path(json.loads(answer.stdout)["Dir"])
