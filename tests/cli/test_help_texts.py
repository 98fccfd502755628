"""Help says the same where docstrings are stripped: the image runs with PYTHONOPTIMIZE=2."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

from dra_driver.cli import capture, machine, main
from dra_driver.cli.convert import commands as convert
from dra_driver.cli.mig import commands
from dra_driver.cli.shares import commands as shares
from dra_driver.version import __version__

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("api", "controller", "dra_driver", "e2e", "kubelet_plugin", "tests")
# The programs that main hands its arguments on to.
BELOW = {
    "machine": machine.app,
    "mig": commands.app,
    "shares": shares.app,
    "convert": convert.app,
    "capture": capture.app,
}


def commands_of(app: typer.Typer) -> Iterator[list[str]]:
    """The words of every command, each also without its last ones."""
    command = typer.main.get_command(app)
    yield []
    for name in command.commands if isinstance(command, TyperGroup) else ():
        below = BELOW.get(name) if app is main.app else None
        for words in commands_of(below) if below else ([],):
            yield [name, *words]


COMMANDS = list(commands_of(main.app))


def help_of(program: str, *words: str, optimize: bool) -> str:
    # One process for one text: what a module registers when it is imported must come from stripped code too.
    command = [sys.executable, *(["-OO"] if optimize else []), "-m", program, *words, "--help"]
    environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1", "PYTHONOPTIMIZE": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


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


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: "-".join(words) or "gpu-dra")
def test_a_command_explains_itself_without_docstrings(words: list[str]) -> None:
    plain = help_of("dra_driver.cli.main", *words, optimize=False)
    assert help_of("dra_driver.cli.main", *words, optimize=True) == plain
    about = plain.partition("Usage:")[2].splitlines()[1:4]
    assert any(line.strip().endswith(".") for line in about), plain


@pytest.mark.parametrize("program", ["controller.main", "kubelet_plugin.main"])
def test_a_daemon_explains_itself_without_docstrings(program: str) -> None:
    assert help_of(program, optimize=True) == help_of(program, optimize=False)


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
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Name) and node.id == "__doc__")
        or (isinstance(node, ast.Attribute) and node.attr == "__doc__")
    ]
    assert readers == []


def test_the_generator_does_not_write_files_without_descriptions() -> None:
    command = [sys.executable, "-OO", "-m", "api.generate", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "run Python without -OO" in done.stderr
