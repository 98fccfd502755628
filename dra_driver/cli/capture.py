"""``gpu-dra capture``: write this node's hardware down as a machine file, to simulate it elsewhere."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from dra_driver.errors import DriverError, HardwareError
from dra_driver.files import write_atomically
from dra_driver.hardware.nvml import NvmlHardware, Reading
from dra_driver.hardware.sysfs import Sysfs
from dra_driver.simulation.hardware.capture import describe
from dra_driver.simulation.hardware.description import MachineDescription, format_machine

app = typer.Typer(add_completion=False)


@app.command(help="Write this node's GPUs as a machine file. UUIDs and serial numbers are left out.")
def capture(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; standard output without.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the machine; its products by default.")] = None,
    driver_root: Annotated[
        Path | None, typer.Option(help="Folder that holds the NVIDIA driver, like /run/nvidia/driver.")
    ] = None,
    host_root: Annotated[Path, typer.Option(help="Where the node's / is, for sysfs.")] = Path("/"),
) -> None:
    hardware = NvmlHardware(driver_root=driver_root, topology=Sysfs(host_root))
    try:
        hardware.start()
        try:
            reading = hardware.read()
            text = format_machine(_describe(hardware, reading, name))
        finally:
            hardware.stop()
        if output is not None:
            write_atomically(output, text.encode())
    except (DriverError, OSError) as error:
        typer.echo(f"gpu-dra capture: {error}", err=True)
        raise typer.Exit(1) from error
    if output is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(f"wrote {output}: {len(reading.machine.gpus)} GPUs", err=True)


def _describe(hardware: NvmlHardware, reading: Reading, name: str | None) -> MachineDescription:
    if reading.problems:
        # A file without the broken GPU would look like a smaller machine.
        problems = "; ".join(problem.message for problem in reading.problems)
        raise HardwareError(f"not every GPU can be read: {problems}", hint="repair the GPU, then capture again")
    machine = reading.machine
    products = list(dict.fromkeys(gpu.product_name for gpu in machine.gpus))
    title = f"{len(machine.gpus)} x {', '.join(products)}" if products else "no GPUs"
    default_name = re.sub(r"[^a-z0-9]+", "-", title.lower().replace("nvidia ", "")).strip("-")
    source = f"gpu-dra capture, {time.strftime('%Y-%m-%d', time.gmtime())}"
    return describe(machine, hardware, name=name or default_name, title=title, source=source)
