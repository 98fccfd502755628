"""``gpu-dra machine``: machines that can be simulated: listed, shown, made into a node's files, their driver replaced.

Tables for people at a terminal; when the output is piped, plain columns without colours or borders, or JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from dra_driver.errors import DriverError
from dra_driver.hardware.cgroups import CgroupHierarchy
from dra_driver.simulation.hardware.description import (
    MachineDescription,
    MachineFileError,
    ProductDescription,
    ProfileDescription,
    format_machine,
    load_machine,
    recorded_machines,
)
from dra_driver.simulation.hardware.driver import replace_driver
from dra_driver.simulation.hardware.memory_limits import use_hierarchy
from dra_driver.simulation.hardware.node_folder import STATE_FILE, make_node

app = typer.Typer(help="Machines that can be simulated.", no_args_is_help=True)

Row = Sequence[str]

_NONE = "none"


@app.command("list", help="List the recorded machines.")
def list_machines() -> None:
    headings = ("NAME", "GPUS", "PRODUCT", "MEMORY", "MIG PROFILES", "WHAT IT IS")
    _print_table(headings, [_summary(load_machine(name)) for name in recorded_machines()])


@app.command("show", help="Show one machine: its GPUs, its MIG profiles, and where the numbers come from.")
def show_machine(
    machine: Annotated[str, typer.Argument(metavar="NAME", help="A recorded machine, or the path of a machine file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the machine file.")] = False,
) -> None:
    try:
        description = load_machine(machine)
    except MachineFileError as error:
        typer.echo(f"gpu-dra machine show: {error}", err=True)
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(format_machine(description), nl=False)
        return
    hardware = description.hardware
    typer.echo(f"{description.name}: {description.title}")
    typer.echo(f"driver {hardware.driver_version}, CUDA driver {hardware.cuda_driver_version}\n")
    _print_table(
        ("GPU", "PRODUCT", "PCI BUS ID", "PCIE ROOT", "NUMA", "MIG"),
        [
            (
                str(gpu.minor),
                hardware.products[gpu.product].name,
                gpu.pci_bus_id,
                gpu.pcie_root or "-",
                "-" if gpu.numa_node is None else str(gpu.numa_node),
                _mig_word(hardware.products[gpu.product], enabled=gpu.mig is not None and gpu.mig.enabled),
            )
            for gpu in hardware.gpus
        ],
    )
    for product in hardware.products:
        if product.mig_profiles:
            typer.echo(f"\nMIG profiles of {product.name}")
            _print_table(
                ("PROFILE", "ID", "MAX", "MEMORY", "SM", "CE", "DEC", "ENC", "JPEG", "OFA", "PLACEMENTS"),
                [_profile_row(profile) for profile in product.mig_profiles],
            )
    _print_notes("Sources", description.sources)
    _print_notes("Not from a listing", (f"{', '.join(each.paths)}: {each.reason}" for each in description.interpolated))


@app.command(
    "create",
    help="Make a simulated node: its state file and its file tree.\n\n"
    "May be repeated while the node is in use: a state of the same machine and seed is kept with its faults, and files "
    "that are right are not touched.",
)
def create_machine(
    machine: Annotated[
        str, typer.Option(metavar="NAME", help="A recorded machine, or the path of a machine file.", show_default=False)
    ],
    seed: Annotated[str, typer.Option(help="Makes UUIDs differ between nodes: the node's name.", show_default=False)],
    folder: Annotated[Path, typer.Option(help="Gets gpus.json and the tree host/.", show_default=False)],
    driver: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The driver's, in the place of the machine's.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace another machine that is there.")] = False,
) -> None:
    try:
        made = make_node(folder, load_machine(machine), seed, driver=driver, replace=replace)
    except (DriverError, OSError, ValidationError) as error:
        typer.echo(f"gpu-dra machine create: {_said(error)}", err=True)
        raise typer.Exit(1) from error
    typer.echo(made.sentence())


@app.command(
    "driver",
    help="Put another driver version on a simulated node, also while it is in use.\n\n"
    "Give both the same version for an update that is done, different ones for what lies in between.",
)
def replace_machine_driver(
    folder: Annotated[Path, typer.Option(help="The node's folder, made by create.", show_default=False)],
    libraries: Annotated[
        str, typer.Option(metavar="VERSION", help="Of the driver's files; none takes them away.", show_default=False)
    ],
    module: Annotated[
        str, typer.Option(metavar="VERSION", help="Of the loaded kernel module; none unloads it.", show_default=False)
    ],
) -> None:
    versions = [None if given == _NONE else given for given in (libraries, module)]
    try:
        done = replace_driver(folder / STATE_FILE, libraries=versions[0], module=versions[1])
    except (DriverError, OSError, ValidationError) as error:
        typer.echo(f"gpu-dra machine driver: {_said(error)}", err=True)
        raise typer.Exit(1) from error
    typer.echo(done.sentence())


@app.command(
    "cgroups",
    help="Say in which cgroups a simulated node limits GPU memory, where /sys/fs/cgroup is not cgroup v2.",
)
def use_cgroups(
    folder: Annotated[Path, typer.Option(help="The node's folder, made by create.", show_default=False)],
    root: Annotated[Path, typer.Option(help="The mount to take, as the plugin sees it.", show_default=False)],
    stands_in: Annotated[
        str, typer.Option(metavar="CONTROLLER", help="For a hierarchy of cgroup v1: its name in /proc/PID/cgroup.")
    ] = "",
) -> None:
    hierarchy = CgroupHierarchy(root, stands_in)
    try:
        use_hierarchy(folder / STATE_FILE, hierarchy)
    except (DriverError, OSError) as error:
        typer.echo(f"gpu-dra machine cgroups: {error}", err=True)
        raise typer.Exit(1) from error
    problem = hierarchy.problem()
    typer.echo(f"memory is limited in the cgroups of {root}" + (f"; seen from here, {problem}" if problem else ""))


def _said(error: DriverError | OSError | ValidationError) -> str:
    return "a driver version looks like 580.105.08" if isinstance(error, ValidationError) else str(error)


def _summary(description: MachineDescription) -> Row:
    hardware = description.hardware
    products = hardware.products
    return (
        description.name,
        str(len(hardware.gpus)),
        ", ".join(product.name for product in products),
        ", ".join(_gibibytes(product.memory_bytes) for product in products),
        ", ".join(str(len(product.mig_profiles)) if product.mig_profiles else "none" for product in products),
        description.title,
    )


def _profile_row(profile: ProfileDescription) -> Row:
    starts = ",".join(str(start) for start in profile.placements.starts)
    numbers = (
        profile.multiprocessors,
        profile.copy_engines,
        profile.decoders,
        profile.encoders,
        profile.jpeg_engines,
        profile.ofa_engines,
    )
    return (
        profile.name,
        str(profile.id),
        str(profile.instances),
        f"{profile.memory_mib} MiB",
        *(str(number) for number in numbers),
        f"{{{starts}}}:{profile.placements.size}",
    )


def _mig_word(product: ProductDescription, *, enabled: bool) -> str:
    if product.mig_profiles is None:
        return "not supported"
    return "enabled" if enabled else "disabled"


def _gibibytes(memory: int | None) -> str:
    return "unified" if memory is None else f"{memory / 2**30:.0f} GiB"


def _print_notes(title: str, notes: Iterable[str]) -> None:
    lines = list(notes)
    if lines:
        typer.echo(f"\n{title}")
        for line in lines:
            typer.echo(f"  - {line}")


def _print_table(headings: Row, rows: Sequence[Row]) -> None:
    if sys.stdout.isatty():
        # Only tables for people need it; `machine create` runs in the plugin's image at every start of a pod.
        from rich.console import Console
        from rich.table import Table

        table = Table(*headings, box=None, header_style="bold", pad_edge=False)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    for row in (headings, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
