"""gpu-dra get, over HTTP against the embedded API server, as a user runs it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from dra_driver.cli import kept
from dra_driver.cli.main import app
from dra_driver.kube.interface import CUSTOM_RESOURCE_DEFINITIONS, NODE_INVENTORIES, PODS
from dra_driver.simulation.controllers.objects import ClaimController
from dra_driver.simulation.manifests import custom_resource_definitions
from dra_driver.simulation.scheduler.scheduler import Scheduler
from tests.allocator.builders import request
from tests.cli.served import served
from tests.simulation.cluster.objects import by_template, cluster, pod, template

runner = CliRunner()


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[Path]:
    api = cluster(template("single", request()), template("big", request(count=9)))
    for definition in custom_resource_definitions():
        api.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
    api.create(
        NODE_INVENTORIES,
        {"apiVersion": "gpu-dra.dev/v1alpha1", "kind": "NodeInventory", "metadata": {"name": "n0"}, "spec": {}},
    )
    api.create(PODS, pod("p", by_template()))
    api.create(PODS, pod("q", by_template(template="big")))
    for _ in range(2):
        ClaimController(api).run_once()
        Scheduler(api).run_once()
    with served(api, tmp_path) as kubeconfig:
        yield kubeconfig


@pytest.fixture(autouse=True)
def no_other_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a demo that somebody has up beside the tests, nor their cluster."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)


def get(kubeconfig: Path, *arguments: str) -> str:
    result = runner.invoke(app, ["get", *arguments, "--kubeconfig", str(kubeconfig)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_tables(kubeconfig: Path) -> None:
    pods = get(kubeconfig, "pods").splitlines()
    assert pods[0].split() == ["NAMESPACE", "NAME", "PHASE", "NODE", "CLAIMS"]
    assert pods[1].split()[:4] == ["demo", "p", "Pending", "n0"]
    claims = get(kubeconfig, "claims").splitlines()
    assert claims[1].split()[2:] == ["allocated,reserved", "n0/gpu-0", "p"]
    assert claims[2].split()[2:] == ["pending", "-", "-"]
    slices = get(kubeconfig, "slices").splitlines()
    assert slices[1].split() == [
        "00000-n0", "n0", "gpu.nvidia.com", "n0", "(generation", "1,", "1", "slices)", "2", "0",
    ]  # fmt: skip
    assert get(kubeconfig, "nodes").splitlines()[1].split() == ["n0", "Ready"]
    assert get(kubeconfig, "inventories").splitlines()[1].split() == ["n0", "0", "-", "-", "False"]
    assert get(kubeconfig, "events").strip() == "no events"


def test_wide_tables_say_why(kubeconfig: Path) -> None:
    assert "3 would fit, but 9 are asked per node" in get(kubeconfig, "pods", "-o", "wide")
    assert "gpu-0 gpu-1" in get(kubeconfig, "slices", "-o", "wide")


def test_documents(kubeconfig: Path) -> None:
    listed = json.loads(get(kubeconfig, "nodes", "-o", "json"))
    assert [item["metadata"]["name"] for item in listed["items"]] == ["n0", "n1"]
    one = yaml.safe_load(get(kubeconfig, "nodes", "n1", "-o", "yaml"))
    assert (one["apiVersion"], one["kind"], one["metadata"]["name"]) == ("v1", "Node", "n1")


def test_namespaces_and_names(kubeconfig: Path) -> None:
    assert get(kubeconfig, "pods", "-n", "default").strip() == "no pods"
    result = runner.invoke(app, ["get", "pods", "nope", "--kubeconfig", str(kubeconfig)])
    assert result.exit_code == 1
    assert "there is no Pod named nope" in result.output


def test_the_kept_demo_is_found(kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    result = runner.invoke(app, ["get", "nodes"])
    assert result.exit_code == 1
    assert "no demo is up; start one with `gpu-dra demo --keep`" in result.output
    kept.write(kept.KeptDemo(str(kubeconfig), str(tmp_path), os.getpid()))
    result = runner.invoke(app, ["get", "nodes"])
    assert result.exit_code == 0
    assert "n0" in result.stdout
    kept.forget(os.getpid())
    assert kept.read() is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"kubeconfig": "/nope", "folder": "/", "pid": 1}'])
def test_a_stale_or_broken_note_is_ignored(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    kept.locations()[0].write_text(content)
    assert kept.read() is None


def test_the_kept_demo_is_found_from_a_shell_without_a_runtime_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """su and ssh do not set XDG_RUNTIME_DIR, or set another one."""
    note = tmp_path / "kubeconfig"
    note.touch()
    demo = kept.KeptDemo(str(note), str(tmp_path), os.getpid())
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "no such folder"))
    kept.write(demo)
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    assert kept.read() == demo
    kept.forget(os.getpid())
    assert kept.read() is None


def test_without_a_demo_the_variable_names_the_cluster(
    kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    result = runner.invoke(app, ["get", "nodes"])
    assert (result.exit_code, "n0" in result.stdout) == (0, True), result.output


def test_a_demo_that_goes_before_the_variable_is_said(
    kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", "/production")
    kept.write(kept.KeptDemo(str(kubeconfig), str(tmp_path), os.getpid()))
    result = runner.invoke(app, ["get", "nodes"])
    assert "n0" in result.stdout
    assert "asking the demo that is up, not KUBECONFIG" in result.output
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    assert "KUBECONFIG" not in runner.invoke(app, ["get", "nodes"]).output
    kept.forget(os.getpid())


def test_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    result = runner.invoke(app, ["get", "nodes", "--kubeconfig", str(tmp_path / "nope")])
    assert result.exit_code == 1
    assert "gpu-dra get nodes:" in result.output
