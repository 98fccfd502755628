"""gpu-dra convert as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dra_driver.cli.main import app
from tests.cli.convert.cases import FOLDER, expected, given
from tests.cli.convert.objects import of_kind, pod

runner = CliRunner()
HALF = pod("nvidia.com/gpu: 1, nvidia.com/gpumem-percentage: 50")
GPU = pod("nvidia.com/gpu: 1")


def test_files_one_after_the_other() -> None:
    files = [str(FOLDER / "hami-amounts.yaml"), str(FOLDER / "hami-where.yaml")]
    result = runner.invoke(app, ["convert", *files])
    assert result.exit_code == 0
    assert result.stdout == f"{expected('hami-amounts')}---\n{expected('hami-where')}"


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_standard_input(arguments: list[str]) -> None:
    result = runner.invoke(app, ["convert", *arguments], input=given("hami-where"))
    assert (result.exit_code, result.stdout) == (0, expected("hami-where"))


def test_a_file_is_written_also_the_one_that_was_read(tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(GPU)
    result = runner.invoke(app, ["convert", str(file), "-o", str(file)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert [each["metadata"]["name"] for each in of_kind(file.read_text(), "ResourceClaimTemplate")] == ["p-main-gpu"]


def test_what_is_not_converted_is_named_and_printed() -> None:
    result = runner.invoke(app, ["convert"], input=f"{HALF}---\n{GPU}")
    assert result.exit_code == 1
    assert result.stderr.startswith("gpu-dra convert: standard input, document 1: spec.containers[0].resources.limits")
    assert "pass --gpu-memory SIZE" in result.stderr
    assert len(of_kind(result.stdout, "Pod")) == 2
    assert len(of_kind(result.stdout, "ResourceClaimTemplate")) == 1


@pytest.mark.parametrize(
    "options", [["--gpu-memory", "79Gi,39Gi"], ["--product", "H100=79Gi", "--product", "A100=39Gi"]]
)
def test_sizes_are_alternatives(options: list[str]) -> None:
    result = runner.invoke(app, ["convert", *options], input=HALF)
    assert result.exit_code == 0
    (template,) = of_kind(result.stdout, "ResourceClaimTemplate")
    (request,) = template["spec"]["spec"]["devices"]["requests"]
    amounts = [each["capacity"]["requests"]["memory"] for each in request["firstAvailable"]]
    # Sizes from the smallest on, products as they are given.
    assert amounts == (["19968Mi", "40448Mi"] if "--gpu-memory" in options else ["40448Mi", "19968Mi"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpu-memory", "80"], '--gpu-memory: "80" is no memory of a GPU; write it with its unit, such as 79Gi'),
        (["--gpu-memory", "much"], '"much" is no memory of a GPU'),
        (["--gpu-memory", "-79Gi"], '"-79Gi" is no memory of a GPU'),
        (["--gpu-memory", "1e400"], '"1e400" is no memory of a GPU'),
        (["--product", "79Gi"], 'write NAME=SIZE, such as "NVIDIA H100 80GB HBM3=79Gi"'),
        (["--product", "=79Gi"], "write NAME=SIZE"),
        (["--product", "H100=79Gi", "--gpu-memory", "79Gi"], "are one or the other"),
        (["--gpu-memory", ",".join(f"{size}Gi" for size in range(1, 10))], "at most 8 sizes of GPUs"),
        (
            ["nothing-here.yaml"],
            "cannot read nothing-here.yaml: No such file or directory (give a file with manifests)",
        ),
        (["-o", "/nowhere/out.yaml"], "cannot write /nowhere/out.yaml: No such file or directory"),
    ],
)
def test_what_cannot_be_used(options: list[str], message: str) -> None:
    result = runner.invoke(app, ["convert", *options], input=GPU)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_what_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(b"\x89PNG")
    result = runner.invoke(app, ["convert", str(file)])
    assert result.exit_code == 2
    assert f"{file} is not UTF-8: invalid start byte at byte 0" in result.stderr


def test_nothing_is_waited_for_at_a_terminal() -> None:
    parent, child = os.openpty()
    try:
        command = [sys.executable, "-m", "dra_driver.cli.main", "convert"]
        done = subprocess.run(command, stdin=child, capture_output=True, text=True, timeout=60)
    finally:
        os.close(parent)
        os.close(child)
    assert done.returncode == 2
    assert "give files, or manifests on standard input" in done.stderr
