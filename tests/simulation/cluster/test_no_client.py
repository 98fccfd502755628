"""The image has no Python package ``kubernetes``, so controller and plugin must never ask for it: both run here, from
their start over a claim to their end, with a trap in its place."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dra_driver.kube.interface import NAMESPACES, PODS, RESOURCE_CLAIM_TEMPLATES
from dra_driver.simulation.cluster import EmbeddedCluster
from tests.simulation.cluster.objects import NAMESPACE, by_template, pod, template

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]
ONE_GPU: dict[str, Any] = {"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com"}}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists once any process of this test has imported ``kubernetes``."""
    asked = tmp_path / "asked"
    package = tmp_path / "trap" / "kubernetes"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        f"open({str(asked)!r}, 'a').close()\nraise ModuleNotFoundError('not in the image', name='kubernetes')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return asked


def wait_for(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)


def test_the_trap_springs(asked: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import kubernetes"], capture_output=True, text=True)
    assert "not in the image" in done.stderr
    assert asked.exists()


def test_controller_and_plugin_never_import_the_kubernetes_client(asked: Path, tmp_path: Path) -> None:
    cluster = EmbeddedCluster("a100-sxm4-40gb", 1, tmp_path / "cluster", leader_election=True)

    def phase() -> str:
        return str(cluster.api.get(PODS, "p", NAMESPACE).get("status", {}).get("phase"))

    try:
        cluster.start()
        cluster.wait_until_ready(30)
        cluster.api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        cluster.api.create(RESOURCE_CLAIM_TEMPLATES, template("single", ONE_GPU))
        cluster.api.create(PODS, pod("p", by_template()))
        wait_for(lambda: phase() == "Running", "the pod's start")
        cluster.api.delete(PODS, "p", NAMESPACE)
        wait_for(lambda: not cluster.api.list(PODS).items, "the pod's end")
        cluster.check()
    finally:
        cluster.stop()
    assert not asked.exists()
