"""Helm on the chart: where the program is, and the objects that the chart renders."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dra_driver.kube.interface import Obj
from dra_driver.yaml_loader import SAFE_LOADER
from e2e.clusters import programs

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/chart/gpu-dra"
NAME = "gpu-dra"  # recommended release name and namespace


class HelmError(Exception):
    """What helm said when it refused."""


def find_helm() -> Path | None:
    """On the PATH, else the one that the end-to-end tests build."""
    if found := shutil.which("helm"):
        return Path(found)
    built = programs.HELM.target / "helm"
    return built if os.access(built, os.X_OK) else None


MISSING = f"helm is neither on the PATH nor built in {programs.HELM.target}"


def run(*arguments: str) -> str:
    """Standard output. Raises HelmError with what helm wrote to standard error."""
    program = find_helm()
    if program is None:
        raise HelmError(MISSING)
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


def template(*arguments: str, release: str = NAME, namespace: str = NAME) -> str:
    """The rendered YAML; ``arguments`` such as "--set" and "a.b=c"."""
    return run("template", release, str(CHART), "--namespace", namespace, *arguments)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The objects of one rendering."""

    objects: tuple[Obj, ...]

    def all(self, kind: str) -> list[Obj]:
        return [obj for obj in self.objects if obj["kind"] == kind]

    def one(self, kind: str, name_end: str = "") -> Obj:
        found = [obj for obj in self.all(kind) if obj["metadata"]["name"].endswith(name_end)]
        assert len(found) == 1, f"{len(found)} of {kind} ...{name_end}"
        return found[0]

    def workload(self, component: str) -> Obj:
        """The Deployment or DaemonSet of a component."""
        found = [obj for kind in ("Deployment", "DaemonSet") for obj in self.all(kind) if _component(obj) == component]
        assert len(found) == 1, f"{len(found)} workloads of {component}"
        return found[0]

    def pod(self, component: str) -> Obj:
        """The spec of its pods."""
        spec: Obj = self.workload(component)["spec"]["template"]["spec"]
        return spec


def _component(obj: Obj) -> str:
    return str(obj["metadata"]["labels"]["app.kubernetes.io/component"])


def render(*arguments: str, release: str = NAME, namespace: str = NAME) -> Rendered:
    return Rendered(tuple(documents(template(*arguments, release=release, namespace=namespace))))


def documents(text: str) -> Iterator[Obj]:
    yield from (document for document in yaml.load_all(text, Loader=SAFE_LOADER) if document)


def env_of(container: dict[str, Any]) -> dict[str, str]:
    """Variables with a plain value, and "<path>" for what the downward API fills in."""
    return {
        entry["name"]: entry["value"] if "value" in entry else f"<{entry['valueFrom']['fieldRef']['fieldPath']}>"
        for entry in container["env"]
    }
