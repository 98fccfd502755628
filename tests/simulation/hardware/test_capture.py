"""Capture and the command line: a simulated machine that is captured again is the same machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dra_driver.cli.capture import capture
from dra_driver.cli.machine import app
from dra_driver.simulation.hardware import faults, load_machine, recorded_machines, uninstall
from dra_driver.simulation.hardware.capture import describe
from dra_driver.simulation.hardware.description import (
    ComputeInstanceDescription,
    MigDescription,
    MigInstanceDescription,
)
from tests.simulated_node import Node, NodeMaker

runner = CliRunner()
gpu_dra = typer.Typer()
gpu_dra.add_typer(app, name="machine")
gpu_dra.command("capture")(capture)


def captured(node: Node, *arguments: str) -> str:
    result = runner.invoke(gpu_dra, ["capture", "--host-root", str(node.root), *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("name", recorded_machines())
def test_a_simulated_machine_captured_again_is_equal(make_node: NodeMaker, name: str) -> None:
    node = make_node(name)
    machine = node.hardware.read_machine()
    again = describe(machine, node.hardware, name=name, title="again", source="test")
    assert again.hardware == load_machine(name).hardware
    assert again.interpolated == ()


def test_mig_instances_are_captured(make_node: NodeMaker) -> None:
    description = load_machine("a30")
    halves = tuple(ComputeInstanceDescription(start=start, slices=1) for start in (0, 1))
    mig = MigDescription(
        enabled=True,
        instances=(
            MigInstanceDescription(profile=14, start=0),
            MigInstanceDescription(profile=14, start=1, compute_instances=()),
            MigInstanceDescription(profile=5, start=2, compute_instances=halves),
        ),
    )
    first = description.hardware.gpus[0].model_copy(update={"mig": mig})
    hardware = description.hardware.model_copy(update={"gpus": (first, *description.hardware.gpus[1:])})
    node = make_node(description.model_copy(update={"hardware": hardware}))
    again = describe(node.hardware.read_machine(), node.hardware, name="a30", title="again", source="test")
    assert again.hardware == hardware


def test_capture_writes_a_file_that_can_be_simulated(make_node: NodeMaker, tmp_path: Path) -> None:
    node = make_node("h100-nvl", start=False)
    output = tmp_path / "mine.json"
    captured(node, "-o", str(output), "--name", "mine")
    description = load_machine(output)
    assert description.name == "mine"
    assert description.title == "2 x NVIDIA H100 NVL"
    assert description.hardware == load_machine("h100-nvl").hardware
    assert "GPU-" not in output.read_text(), "UUIDs are somebody's"


def test_capture_prints_without_a_file(make_node: NodeMaker) -> None:
    node = make_node("t4", start=False)
    assert json.loads(captured(node))["name"] == "4-x-tesla-t4"


def test_capture_refuses_half_a_machine(make_node: NodeMaker, tmp_path: Path) -> None:
    node = make_node("t4", start=False)
    faults.lose_gpu(node.state_file, 2)
    result = runner.invoke(gpu_dra, ["capture", "-o", str(tmp_path / "mine.json")])
    assert result.exit_code == 1
    assert "GPU 2" in result.output
    assert not (tmp_path / "mine.json").exists()


@pytest.mark.usefixtures("no_library")
def test_capture_without_a_driver_says_where_it_looked(tmp_path: Path) -> None:
    uninstall()
    result = runner.invoke(gpu_dra, ["capture", "--driver-root", str(tmp_path)])
    assert result.exit_code == 1
    assert f"{tmp_path}/usr/lib64/libnvidia-ml.so.1" in result.output


def test_capture_into_a_folder_that_is_not_there(make_node: NodeMaker, tmp_path: Path) -> None:
    make_node("t4", start=False)
    result = runner.invoke(gpu_dra, ["capture", "-o", str(tmp_path / "no/mine.json")])
    assert result.exit_code == 1
    assert "No such file" in result.output


def test_machine_list_is_plain_when_piped() -> None:
    result = runner.invoke(gpu_dra, ["machine", "list"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["NAME", "GPUS", "PRODUCT", "MEMORY", "MIG", "PROFILES", "WHAT", "IT", "IS"]
    assert [line.split()[0] for line in lines[1:]] == list(recorded_machines())
    assert result.stdout.isascii()


def test_machine_show() -> None:
    result = runner.invoke(gpu_dra, ["machine", "show", "b200"])
    assert result.exit_code == 0
    for text in ("0000:1b:00.0", "1g.23gb+me", "{0,2,4,6}:2", "Sources", "Not from a listing", "copyEngines"):
        assert text in result.stdout


def test_machine_show_json_is_the_machine_file(tmp_path: Path) -> None:
    result = runner.invoke(gpu_dra, ["machine", "show", "a30", "--json"])
    file = tmp_path / "a30.json"
    file.write_text(result.stdout)
    assert load_machine(file) == load_machine("a30")


def test_machine_show_of_something_unknown() -> None:
    result = runner.invoke(gpu_dra, ["machine", "show", "k80"])
    assert result.exit_code == 1
    assert "no recorded machine is named 'k80'" in result.output
