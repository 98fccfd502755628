"""The commands ``gpu-dra mig status`` and ``gpu-dra mig plan``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from api.driver_spec import DriverSpec
from dra_driver.allocator.model import ClaimKey
from dra_driver.cli.cluster import connect_or_demo
from dra_driver.cli.mig import report
from dra_driver.cli.mig.planning import plan as make_plan
from dra_driver.cli.mig.reading import ClusterView, held_devices, map_cluster, read_cluster
from dra_driver.cli.mig.want import check_profiles, parse_want
from dra_driver.errors import DriverError
from dra_driver.kube.interface import ApiError

FITS, DOES_NOT_FIT, NO_ANSWER = 0, 1, 2

app = typer.Typer(
    help="Maps of partitioned GPUs, and where more would go. Reads only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


_Node = Annotated[str | None, typer.Option("--node", help="Only this node.", show_default="all nodes")]
_Output = Annotated[Output, typer.Option("--output", "-o", help="For people or for programs.")]
_Kubeconfig = Annotated[
    Path | None, typer.Option(help="The cluster to ask.", show_default="the demo left up with --keep")
]
_Driver = Annotated[str, typer.Option("--driver-name", help="Name of the driver in ResourceSlices.")]
_DRIVER = str(DriverSpec.model_fields["driver_name"].default)


@app.command(help="Draw each GPU's memory slices: whose they are, what was made by hand, what is free.")
def status(
    node: _Node = None,
    output: _Output = Output.TEXT,
    kubeconfig: _Kubeconfig = None,
    driver_name: _Driver = _DRIVER,
) -> None:
    view = _read("status", kubeconfig, driver_name, node)
    maps = map_cluster(view)
    if output is Output.JSON:
        print(json.dumps(report.status_json(view, maps), indent=2))
        return
    console = _console()
    _print(console, report.status_lines(view, maps, console.width))


@app.command(
    help="Say where MIG devices would go now, what is in the way, and which claim to move.\n\n"
    "Exits with 0 when everything fits, 1 when it does not, 2 when that cannot be said."
)
def plan(
    want: Annotated[str, typer.Option("--want", help="Profiles and counts: 3g.40gb=2,1g.10gb=3.", show_default=False)],
    node: _Node = None,
    output: _Output = Output.TEXT,
    kubeconfig: _Kubeconfig = None,
    driver_name: _Driver = _DRIVER,
) -> None:
    try:
        wanted = parse_want(want)
    except DriverError as error:
        raise _no_answer("plan", error) from None
    view = _read("plan", kubeconfig, driver_name, node)
    try:
        check_profiles(wanted, view)
    except DriverError as error:
        raise _no_answer("plan", error) from None
    found = make_plan(view, wanted)
    if output is Output.JSON:
        print(json.dumps(report.plan_json(found, wanted), indent=2))
    else:
        console = _console()
        maps = map_cluster(view, report.planned_names(found))
        _print(console, report.plan_lines(found, view, maps, _pods(view), console.width))
    raise typer.Exit(FITS if found.fits else DOES_NOT_FIT)


def _read(command: str, kubeconfig: Path | None, driver: str, node: str | None) -> ClusterView:
    try:
        return read_cluster(connect_or_demo(kubeconfig), driver, node)
    except (DriverError, ApiError) as error:
        raise _no_answer(command, error) from None


def _no_answer(command: str, error: Exception) -> typer.Exit:
    print(f"gpu-dra mig {command}: {error}", file=sys.stderr)
    return typer.Exit(NO_ANSWER)


def _pods(view: ClusterView) -> dict[ClaimKey, str]:
    """The pods of each claim, for a sentence."""
    held = [device for node in view.nodes for device in held_devices(view, node.name)]
    return {
        device.claim: f"{'pod' if len(device.pods) == 1 else 'pods'} {', '.join(device.pods)}"
        for device in held
        if device.pods
    }


def _console() -> Console:
    """Colours at a terminal only, and none where NO_COLOR is set (no-color.org)."""
    return Console(color_system=None if os.environ.get("NO_COLOR") else "auto", highlight=False)


def _print(console: Console, lines: Iterable[Text]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)
