"""The command gpu-dra. Declares the commands; what they do is imported when one of them is called, so that help and
errors in the arguments come at once.

Texts of help are arguments, not docstrings: the image runs without those (PYTHONOPTIMIZE=2).
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dra_driver.version import __version__

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

app = typer.Typer(
    help="Dynamic Resource Allocation for NVIDIA GPUs: try it, look into it, simulate it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Kind(StrEnum):
    """What ``gpu-dra get`` shows."""

    SLICES = "slices"
    CLAIMS = "claims"
    PODS = "pods"
    NODES = "nodes"
    INVENTORIES = "inventories"
    EVENTS = "events"


class Format(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gpu-dra {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command(
    help="Run manifests on a simulated cluster: real controller, real plugins, simulated GPUs and containers.\n\n"
    "Exits with 0 only if every pod reached the state that its manifest expects and everything was cleaned up."
)
def demo(
    machine: Annotated[
        str, typer.Option(help="A recorded machine (gpu-dra machine list), or a machine file.")
    ] = "a100-sxm4-40gb",
    driver: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The GPUs' driver, in the place of the machine's.")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, max=50, help="How many nodes.", show_default="2, more of a small machine")
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", "-f", help="Manifests to apply: a file or a folder, repeatable.", show_default="the quickstart"
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster up until Ctrl-C.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Where the cluster's files go; kept afterwards.", show_default="a temporary one")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that pods may take.")] = 60.0,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log to standard error too.")] = False,
) -> None:
    from dra_driver.cli.demo import DemoOptions, run

    raise typer.Exit(run(DemoOptions(machine, driver, nodes, tuple(file or ()), keep, folder, timeout, verbose)))


@app.command(
    help="Show slices, claims, pods, nodes, inventories or events, of a cluster or of the demo that was left up."
)
def get(
    kind: Annotated[Kind, typer.Argument(help="What to show.", show_default=False)],
    name: Annotated[str | None, typer.Argument(help="Only the object of this name.")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only this namespace.")] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to show it.")] = Format.TABLE,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="The cluster to ask.", show_default="the demo left up with --keep")
    ] = None,
) -> None:
    from dra_driver.cli.get import run

    raise typer.Exit(run(kind.value, name, namespace, output.value, kubeconfig))


@app.command(
    context_settings=_PASS_ON,
    help="List and show the machines that can be simulated; make the files of a simulated node.",
)
def machine(context: typer.Context) -> None:
    from dra_driver.cli.machine import app as machine_app

    machine_app(args=context.args, prog_name="gpu-dra machine")


@app.command(
    context_settings=_PASS_ON,
    help="Draw what lies where on partitioned GPUs; say where more would go, and what is in the way.",
)
def mig(context: typer.Context) -> None:
    from dra_driver.cli.mig.commands import app as mig_app

    mig_app(args=context.args, prog_name="gpu-dra mig")


@app.command(
    context_settings=_PASS_ON,
    help="Show who holds how much of each GPU, what is free, and the largest request that still fits.",
)
def shares(context: typer.Context) -> None:
    from dra_driver.cli.shares.commands import app as shares_app

    shares_app(args=context.args, prog_name="gpu-dra shares")


@app.command(
    context_settings=_PASS_ON,
    help="Turn manifests for the device plugin, HAMi, Volcano or KAI into manifests with ResourceClaims.",
)
def convert(context: typer.Context) -> None:
    from dra_driver.cli.convert.commands import app as convert_app

    convert_app(args=context.args, prog_name="gpu-dra convert")


@app.command(context_settings=_PASS_ON, help="Write this node's hardware down as a machine file.")
def capture(context: typer.Context) -> None:
    from dra_driver.cli.capture import app as capture_app

    capture_app(args=context.args, prog_name="gpu-dra capture")


def main() -> None:
    app(prog_name="gpu-dra")


if __name__ == "__main__":
    main()
