"""The command ``gpu-dra convert``. Exit code 1: something stays as it was; 2: a file or an option cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dra_driver.cli.convert import sizes
from dra_driver.cli.convert.converting import Converted, Options
from dra_driver.cli.convert.converting import convert as convert_text
from dra_driver.cli.convert.documents import Source
from dra_driver.errors import DriverError
from dra_driver.files import write_atomically

NOT_ALL = 1
NOT_USABLE = 2
STDIN = "-"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(
    help="Turn manifests that ask for GPUs by resources and annotations of the device plugin, HAMi, Volcano or KAI "
    "into manifests with ResourceClaims. Reads files or standard input, prints YAML, touches no cluster.\n\n"
    "A comment stands where the meaning differs. Comments inside of a converted document are lost, the order of its "
    "keys stays; other documents are printed as they were, so a second conversion changes nothing.\n\n"
    "Exits with 1 when something could not be converted: it is named on standard error and printed as it was."
)
def convert(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="YAML files of any number of documents; - is standard input.", show_default="standard input"
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write.", show_default="standard output")
    ] = None,
    gpu_memory: Annotated[
        list[str] | None,
        typer.Option(
            "--gpu-memory",
            metavar="SIZE[,SIZE...]",
            help="Memory of a GPU as the driver publishes it, for what is asked for in percent. Several: one "
            "alternative each.",
        ),
    ] = None,
    product: Annotated[
        list[str] | None,
        typer.Option(
            "--product",
            metavar="NAME=SIZE",
            help="The same for GPUs whose product name contains NAME, whatever the case. Repeatable, best first.",
        ),
    ] = None,
    keep_scheduler: Annotated[
        bool, typer.Option("--keep-scheduler", help="Leave schedulerName kai-scheduler and volcano as they are.")
    ] = False,
) -> None:
    try:
        options = Options(sizes.parse(gpu_memory or (), product or ()), keep_scheduler)
        converted = convert_text(_sources(files or [Path(STDIN)]), options)
        _write(converted, output)
    except (sizes.SizeError, DriverError) as error:
        _tell(str(error))
        raise typer.Exit(NOT_USABLE) from None
    for problem in converted.problems:
        _tell(problem)
    if converted.problems:
        raise typer.Exit(NOT_ALL)


def _sources(files: list[Path]) -> list[Source]:
    """All of them, before anything is written. Raises DriverError."""
    return [_stdin() if str(file) == STDIN else _read(file) for file in files]


def _stdin() -> Source:
    if sys.stdin.isatty():
        raise DriverError("nothing to convert", hint="give files, or manifests on standard input")
    return Source("standard input", _decoded("standard input", sys.stdin.buffer.read()))


def _read(file: Path) -> Source:
    try:
        return Source(str(file), _decoded(str(file), file.read_bytes()))
    except OSError as error:
        raise DriverError(f"cannot read {file}: {error.strerror}", hint="give a file with manifests") from error


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DriverError(f"{name} is not UTF-8: {error.reason} at byte {error.start}", hint="convert it") from None


def _write(converted: Converted, output: Path | None) -> None:
    if output is None:
        sys.stdout.buffer.write(converted.text.encode())
        sys.stdout.buffer.flush()
        return
    try:
        write_atomically(output, converted.text.encode())
    except OSError as error:
        raise DriverError(f"cannot write {output}: {error.strerror}", hint="give -o another file") from error


def _tell(text: str) -> None:
    print(f"gpu-dra convert: {text}", file=sys.stderr, flush=True)
