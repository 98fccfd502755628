"""Prints the help of every command of gpu-dra, as JSON by its words. A program of its own, for ``python -OO``: what a
module registers when it is imported must come from stripped code too."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator

import typer
import typer.main
from typer.core import TyperGroup

from dra_driver.cli import capture, machine, main
from dra_driver.cli.convert import commands as convert
from dra_driver.cli.mig import commands
from dra_driver.cli.shares import commands as shares

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


def help_of(words: list[str]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main.app(args=[*words, "--help"], prog_name="gpu-dra")
    return printed.getvalue()


if __name__ == "__main__":
    print(json.dumps({" ".join(words): help_of(words) for words in COMMANDS}))
