"""The command ``gpu-dra shares``.

With ``--watch`` it prints again within a second of a change that it shows, and nothing while nothing of that changes;
Ctrl-C ends it with exit code 0. What cannot be said then is told and tried again; without, it is exit code 2.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from api.driver_spec import DriverSpec
from dra_driver.cli.cluster import connect_or_demo
from dra_driver.cli.shares.document import shares_json
from dra_driver.cli.shares.holding import nodes_of
from dra_driver.cli.shares.reading import ClusterView, read_cluster
from dra_driver.cli.shares.report import table_lines
from dra_driver.cli.shares.use import NodeUse
from dra_driver.cli.shares.watching import Watching
from dra_driver.errors import DriverError
from dra_driver.kube.interface import ApiError

NO_ANSWER = 2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Nodes = tuple[NodeUse, ...]


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"


@app.command(
    help="Show who holds how much of each GPU, how it is shared, what is free, and the largest request that still fits."
)
def shares(
    node: Annotated[str | None, typer.Option("--node", help="Only this node.", show_default="all nodes")] = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="For people, for people with wide screens, or for programs.")
    ] = Output.TABLE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Print again after each change, until Ctrl-C.")] = False,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="The cluster to ask.", show_default="the demo left up with --keep")
    ] = None,
    driver_name: Annotated[str, typer.Option("--driver-name", help="Name of the driver in ResourceSlices.")] = str(
        DriverSpec.model_fields["driver_name"].default
    ),
) -> None:
    show = Printer(output, driver_name, again=watch)
    try:
        api = connect_or_demo(kubeconfig)
        nodes = nodes_of(read_cluster(api, driver_name, node))
        show(nodes)
        if watch:
            with Watching(api, driver_name, node) as watching:
                follow(watching.looks(), nodes, show)
    except (DriverError, ApiError) as error:
        _tell(error)
        raise typer.Exit(NO_ANSWER) from None
    except KeyboardInterrupt:
        if not watch:
            raise


def follow(looks: Iterable[ClusterView | DriverError], shown: Nodes, show: Callable[[Nodes], None]) -> None:
    """Shows each look that is another than the one before; ``shown`` is the first."""
    before: Nodes | str = shown
    for look in looks:
        now = str(look) if isinstance(look, DriverError) else nodes_of(look)
        if now == before:
            continue
        before = now
        if isinstance(look, DriverError):
            _tell(look)
        elif not isinstance(now, str):
            show(now)


class Printer:
    """``again``: it is one of several, so a table has the time above it, and a document is one line."""

    def __init__(self, output: Output, driver: str, *, again: bool) -> None:
        self._output, self._driver, self._again = output, driver, again
        # Colours at a terminal only, and none where NO_COLOR is set (no-color.org).
        self._console = Console(color_system=None if os.environ.get("NO_COLOR") else "auto", highlight=False)

    def __call__(self, nodes: Nodes) -> None:
        if self._output is Output.JSON:
            print(json.dumps(shares_json(nodes, self._driver), indent=None if self._again else 2), flush=True)
            return
        lines = table_lines(nodes, self._driver, wide=self._output is Output.WIDE)
        if self._again:
            lines = chain([Text(time.strftime("%H:%M:%S"), style="bold")], lines, [Text()])
        for line in lines:
            self._console.print(line, soft_wrap=True)
        sys.stdout.flush()


def _tell(error: Exception) -> None:
    print(f"gpu-dra shares: {error}", file=sys.stderr, flush=True)
