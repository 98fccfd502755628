"""The command line's surface: help, version, wrong arguments; commands are imported only when they are called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dra_driver.cli.main import app
from dra_driver.version import __version__

runner = CliRunner()


def test_help_names_every_command() -> None:
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in ("demo", "get", "machine", "convert", "capture"):
        assert command in result.stdout


def test_version() -> None:
    assert runner.invoke(app, ["--version"]).stdout == f"gpu-dra {__version__}\n"


def test_machine_is_passed_on() -> None:
    result = runner.invoke(app, ["machine", "list"])
    assert result.exit_code == 0
    assert "a100-sxm4-40gb" in result.stdout
    assert "show" in runner.invoke(app, ["machine", "--help"]).stdout
    assert "--output" in runner.invoke(app, ["capture", "--help"]).stdout


@pytest.mark.parametrize(
    "arguments",
    [["get", "gpus"], ["get", "pods", "-o", "xml"], ["demo", "--nodes", "0"], ["nope"]],
)
def test_wrong_arguments(arguments: list[str]) -> None:
    assert runner.invoke(app, arguments).exit_code == 2


def test_the_demo_says_what_it_cannot_use(tmp_path: Path) -> None:
    result = runner.invoke(app, ["demo", "-f", str(tmp_path / "nope.yaml")])
    assert result.exit_code == 2
    assert "cannot read" in result.output
    result = runner.invoke(app, ["demo", "--machine", "nope"])
    assert result.exit_code == 2
    assert "nope" in result.output
    (tmp_path / "something").touch()
    result = runner.invoke(app, ["demo", "--folder", str(tmp_path)])
    assert result.exit_code == 2
    assert "is not empty" in result.output


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from dra_driver.cli.main import app\n"
        "heavy = {'grpc', 'celpy', 'kubernetes', 'pynvml', 'pydantic', 'yaml'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
