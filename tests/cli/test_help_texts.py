"""Help says the same where docstrings are stripped: the image runs with PYTHONOPTIMIZE=2."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dra_driver.version import __version__
from tests.cli.all_help import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("api", "controller", "dra_driver", "e2e", "kubelet_plugin", "tests")


def output_of(program: str, *arguments: str, optimize: bool) -> str:
    command = [sys.executable, *(["-OO"] if optimize else []), "-m", program, *arguments]
    environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1", "PYTHONOPTIMIZE": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


Texts = dict[str, str]


one_worker = pytest.mark.xdist_group("help-texts")  # for those that share the texts


@pytest.fixture(scope="module")
def texts() -> tuple[Texts, Texts]:
    """Of every command: with docstrings, and without."""
    plain, stripped = (json.loads(output_of("tests.cli.all_help", optimize=optimize)) for optimize in (False, True))
    return plain, stripped


def test_every_command_is_looked_at() -> None:
    assert ["mig", "plan"] in COMMANDS
    assert ["machine", "create"] in COMMANDS
    assert [words for words in COMMANDS if len(words) == 1] == [
        ["demo"],
        ["get"],
        ["machine"],
        ["mig"],
        ["shares"],
        ["convert"],
        ["capture"],
    ]


@one_worker
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: "-".join(words) or "gpu-dra")
def test_a_command_explains_itself_without_docstrings(texts: tuple[Texts, Texts], words: list[str]) -> None:
    plain, stripped = (each[" ".join(words)] for each in texts)
    assert stripped == plain
    about = plain.partition("Usage:")[2].splitlines()[1:4]
    assert any(line.strip().endswith(".") for line in about), plain


@pytest.mark.parametrize("program", ["controller.main", "kubelet_plugin.main"])
def test_a_daemon_explains_itself_without_docstrings(program: str) -> None:
    assert output_of(program, "--help", optimize=True) == output_of(program, "--help", optimize=False)


@one_worker
def test_the_program_itself_explains_itself_without_docstrings(texts: tuple[Texts, Texts]) -> None:
    assert output_of("dra_driver.cli.main", "--help", optimize=True) == texts[0][""]


@pytest.mark.parametrize("program", ["dra_driver.cli.main", "controller.main", "kubelet_plugin.main"])
def test_a_version_comes_with_the_programs_name(program: str) -> None:
    command = [sys.executable, "-m", program, "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(rf"gpu-dra\S* {re.escape(__version__)}\n", done.stdout)


def test_no_program_reads_its_docstring() -> None:
    readers = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in SOURCES
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "__doc__" in (text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if (isinstance(node, ast.Name) and node.id == "__doc__")
        or (isinstance(node, ast.Attribute) and node.attr == "__doc__")
    ]
    assert readers == []


def test_the_generator_does_not_write_files_without_descriptions() -> None:
    command = [sys.executable, "-OO", "-m", "api.generate", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "run Python without -OO" in done.stderr
