"""gpu-dra mig over HTTP against the embedded API server, as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dra_driver.cli.main import app
from dra_driver.kube.interface import (
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    NODE_INVENTORIES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    Obj,
)
from dra_driver.simulation.manifests import custom_resource_definitions
from dra_driver.simulation.store import EmbeddedApi
from tests.cli.mig.world import claim, gpus, inventory, slices
from tests.cli.served import served

runner = CliRunner()


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[Path]:
    api = EmbeddedApi()
    for definition in custom_resource_definitions():
        api.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
    api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}})
    h100 = gpus("h100-sxm5-80gb", 1)
    _with_status(api, inventory("n0", h100))
    for entry in slices("n0", h100):
        api.create(RESOURCE_SLICES, entry)
    held = claim("train", "n0", "gpu-0-mig-1g10gb-19-6", pods=["train-0"])
    api.create(RESOURCE_CLAIMS, {key: value for key, value in held.items() if key != "status"})
    api.patch(RESOURCE_CLAIMS, "train", {"status": held["status"]}, namespace="ml", subresource="status")
    with served(api, tmp_path) as kubeconfig:
        yield kubeconfig


def _with_status(api: EmbeddedApi, obj: Obj) -> None:
    api.create(NODE_INVENTORIES, {key: value for key, value in obj.items() if key != "status"})
    api.patch(NODE_INVENTORIES, obj["metadata"]["name"], {"status": obj["status"]}, subresource="status")


def mig(kubeconfig: Path, *arguments: str, code: int = 0) -> str:
    result = runner.invoke(app, ["mig", *arguments, "--kubeconfig", str(kubeconfig)])
    assert result.exit_code == code, result.output
    return result.output


def test_status(kubeconfig: Path) -> None:
    lines = mig(kubeconfig, "status").splitlines()
    assert lines[0] == "n0  1 x NVIDIA H100 80GB HBM3"
    assert lines[2].startswith("gpu-0     .       .       .       .       .       .    [1g tr~]   .      7 free")
    assert "  gpu-0  6       1g.10gb  ml/train  train-0" in lines
    (node,) = json.loads(mig(kubeconfig, "status", "--node", "n0", "-o", "json"))["nodes"]
    assert node["gpus"][0]["free"] == 7


def test_plan_says_with_its_exit_code_whether_it_fits(kubeconfig: Path) -> None:
    assert mig(kubeconfig, "plan", "--want", "3g.40gb=1,1g.10gb=2").endswith("Everything fits.\n")
    refused = mig(kubeconfig, "plan", "--want", "3g.40gb=2", code=1)
    assert refused.endswith("Everything fits once ml/train (pod train-0) has left.\n")
    assert json.loads(mig(kubeconfig, "plan", "--want", "7g.80gb", "-o", "json", code=1))["move"] == [
        {"namespace": "ml", "name": "train"}
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--want", "2g.10gb=1"], "gpu-dra mig plan: no GPU has MIG profile 2g.10gb, did you mean 2g.20gb?"),
        (["plan", "--want", "many"], "gpu-dra mig plan: 'many': \"many\" is no MIG profile"),
        (["plan"], "Missing option '--want'"),
        (["status", "--node", "n9"], "gpu-dra mig status: there is no NodeInventory n9 (there are: n0)"),
        (["status", "-o", "xml"], "Invalid value for '--output'"),
    ],
)
def test_questions_without_an_answer(kubeconfig: Path, arguments: list[str], message: str) -> None:
    assert message in mig(kubeconfig, *arguments, code=2)


def test_a_cluster_that_cannot_be_asked(tmp_path: Path) -> None:
    result = runner.invoke(app, ["mig", "status", "--kubeconfig", str(tmp_path / "nope")])
    assert result.exit_code == 2
    assert "gpu-dra mig status: " in result.output


def test_help() -> None:
    text = runner.invoke(app, ["mig", "--help"]).stdout
    assert "status" in text
    assert "plan" in text


@pytest.mark.process
@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_at_a_terminal_unless_no_color_is_set(kubeconfig: Path, no_color: str) -> None:
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "NO_COLOR": no_color}
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "dra_driver.cli.main", "mig", "status", "--kubeconfig", str(kubeconfig)]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        written = b""
        while chunk := _read(ours):
            written += chunk
    os.close(ours)
    assert process.returncode == 0, written
    assert b"[1g tr~]" in written
    assert (b"\x1b[" in written) == (not no_color)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end of a pty is closed
        return b""
