"""The shipped examples that were converted: each is what the command in its header makes of its input."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dra_driver.cli.main import app

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "user" / "convert.md"
COMMANDS = [
    line
    for block in re.findall(r"^```\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if "gpu-dra convert" in line
]
CONVERTED = sorted((ROOT / "deploy" / "examples" / "fractions").glob("*-from-*.yaml"))


def body(text: str) -> str:
    """Without the header, which the input has as well."""
    return text[text.index("apiVersion: ") :]


def test_each_input_has_its_example() -> None:
    inputs = (ROOT / "deploy" / "examples" / "fractions" / "from").iterdir()
    assert {path.name[:2] for path in inputs} == {path.name[:2] for path in CONVERTED} == {"06", "07"}


@pytest.mark.parametrize("path", CONVERTED, ids=lambda path: path.stem)
def test_an_example_is_what_its_command_makes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (command,) = [line for line in path.read_text().splitlines() if line.startswith("#   gpu-dra ")]
    result = CliRunner().invoke(app, shlex.split(command)[2:])
    assert result.exit_code == 0
    assert body(path.read_text()) == body(result.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    before, _, arguments = command.partition("gpu-dra convert")
    given = Path(before.split()[1]).read_text() if before else ""
    output = tmp_path / "converted.yaml"
    words = [str(output) if word == output.name else word for word in shlex.split(arguments)]
    result = CliRunner().invoke(app, ["convert", *words], input=given)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "resourceClaimTemplateName" in (output.read_text() if output.exists() else result.stdout)


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) == 6
