"""What nvidia-smi prints around its values: the table and the log, as printf formats. Pure.

Python's ``%`` and a shell's ``printf`` understand the same formats, so the program on a node and the script in
containers print by the same lines. The table is that of driver 580 (MIG devices: 570), the log that of 580.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from dra_driver.simulation.hardware.smi.facts import GpuFacts, MigDevice, Process, Versions
from dra_driver.simulation.hardware.smi.fields import (
    COMPUTE_MODES,
    NOT_AVAILABLE,
    field_texts,
    mebibytes,
    with_unit,
)


@dataclass(frozen=True, slots=True)
class Line:
    """``text`` with the texts of ``names`` in it."""

    text: str
    names: tuple[str, ...] = ()

    def filled(self, texts: Mapping[str, str]) -> str:
        return self.text % tuple(texts[name] for name in self.names) + "\n"


def _ruled(*widths: int, rule: str = "-", ends: str = "+", crossing: str = "+") -> Line:
    return Line(ends + crossing.join(rule * width for width in widths) + ends)


_GPU_COLUMNS = (41, 24, 22)
_MIG_COLUMNS = (18, 34, 11, 23)
_WIDTH = 89

GPU_RULE = _ruled(*_GPU_COLUMNS)
TABLE_HEAD = (
    Line("%s       ", ("date",)),
    _ruled(_WIDTH),
    Line(
        "| NVIDIA-SMI %-23sDriver Version: %-15sCUDA Version: %-9s|",
        ("driver_version", "driver_version", "cuda_version"),
    ),
    GPU_RULE,
    Line("| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |"),
    Line("| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |"),
    Line("|                                         |                        |               MIG M. |"),
    _ruled(*_GPU_COLUMNS, rule="=", ends="|"),
)
GPU_ROWS = (
    Line(
        "|%4s  %-30s %-3s |   %-16s %-3s |%21s |",
        ("index", "table.name", "table.persistence", "pci.bus_id", "table.display", "table.ecc"),
    ),
    Line(
        "| %3s %5s    %-13s%5s / %5s | %-22s |%8s %12s |",
        (
            "fan.speed",
            "table.temperature",
            "pstate",
            "table.power",
            "table.power_limit",
            "table.memory",
            "table.utilization",
            "table.compute_mode",
        ),
    ),
    Line("|                                         |                        |%21s |", ("mig.mode.current",)),
    GPU_RULE,
)

MIG_RULE = _ruled(*_MIG_COLUMNS)
MIG_HEAD = (
    Line(""),
    _ruled(_WIDTH),
    Line("| MIG devices:                                                                            |"),
    MIG_RULE,
    Line("| GPU  GI  CI  MIG |                     Memory-Usage |        Vol|        Shared         |"),
    Line("|      ID  ID  Dev |                       BAR1-Usage | SM     Unc| CE ENC  DEC  OFA  JPG |"),
    Line("|                  |                                  |        ECC|                       |"),
    _ruled(*_MIG_COLUMNS, rule="=", ends="|"),
)
MIG_ROWS = (
    Line(
        "|%3s %4s %3s %3s  |%16sMiB / %5sMiB    |%3s %6s |%3s %3s %4s %4s %4s |",
        (
            "index",
            "device.gpu_instance",
            "device.compute_instance",
            "device.index",
            "device.used",
            "device.total",
            "device.multiprocessors",
            "device.ecc_errors",
            "device.copy_engines",
            "device.encoders",
            "device.decoders",
            "device.ofa_engines",
            "device.jpeg_engines",
        ),
    ),
    Line(
        "|                  |%18sMiB / %5sMiB  |           |                       |",
        ("device.bar1_used", "device.bar1_total"),
    ),
    MIG_RULE,
)
NO_MIG_ROWS = (
    Line("|  No MIG devices found                                                                   |"),
    _ruled(_WIDTH),
)

PROCESS_HEAD = (
    Line(" " * _WIDTH),
    _ruled(_WIDTH),
    Line("| Processes:                                                                              |"),
    Line("|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |"),
    Line("|        ID   ID                                                               Usage      |"),
    _ruled(_WIDTH, rule="=", ends="|"),
)
PROCESS_ROW = Line(
    "|%5s %4s %4s %16s      C   %-36s%10s |",
    (
        "index",
        "process.gpu_instance",
        "process.compute_instance",
        "process.pid",
        "process.table.name",
        "process.table.memory",
    ),
)
NO_PROCESS_ROW = Line("|  No running processes found                                                             |")
PROCESS_END = _ruled(_WIDTH)

# What -L prints.
LIST_GPU = (Line("GPU %s: %s (UUID: %s)", ("index", "name", "uuid")),)
LIST_MIG = (Line("  MIG %-11s Device %2s: (UUID: %s)", ("device.name", "device.index", "device.uuid")),)

# What --version prints.
VERSION = (
    Line("NVIDIA-SMI version  : %s", ("driver_version",)),
    Line("DRIVER version      : %s", ("driver_version",)),
    Line("CUDA Version        : %s", ("cuda_version",)),
)

_PROCESS_ROOM = 36
_NAME_ROOM = 27  # a longer name ends in three dots, as in tables of 535 and newer
_SHORT_MODES = {**COMPUTE_MODES, 1: "E. Thread", 3: "E. Process"}


def gpu_texts(gpu: GpuFacts, machine: Mapping[str, str]) -> dict[str, str]:
    """Everything that lines may say of a GPU: its fields, and what only the table or only the log shows."""
    short = gpu.name if len(gpu.name) <= _NAME_ROOM else f"{gpu.name[: _NAME_ROOM - 3]}..."
    bar1 = (None, None, None) if gpu.bar1 is None else (gpu.bar1.total, gpu.bar1.used, gpu.bar1.total - gpu.bar1.used)
    return {
        **field_texts(gpu, {**machine, "index": str(gpu.index)}),
        "minor": str(gpu.minor),
        "table.name": short,
        "table.persistence": "On" if gpu.persistence else "Off",
        "table.display": "Off",
        # With MIG the errors are those of its devices.
        "table.ecc": "On" if gpu.mig else "Off" if gpu.ecc is False else with_unit(gpu.ecc_errors, ""),
        "table.temperature": _glued(gpu.celsius, "C"),
        "table.power": _glued(_whole_watts(gpu.power_milliwatts), "W"),
        "table.power_limit": _glued(_whole_watts(gpu.power_limit_milliwatts), "W"),
        "table.memory": "Not Supported"  # unified memory, as on GB10
        if gpu.memory is None
        else f"{_glued(gpu.memory.used >> 20, 'MiB'):>10} / {_glued(gpu.memory.total >> 20, 'MiB'):>9}",
        "table.utilization": _glued(gpu.gpu_percent, "%"),
        "table.compute_mode": _SHORT_MODES[gpu.compute_mode],
        "log.brand": gpu.brand.upper() if gpu.brand == "Nvidia" else gpu.brand,
        "log.architecture": gpu.architecture,
        "log.temperature": with_unit(gpu.celsius, "C"),
        "log.bar1_total": with_unit(mebibytes(bar1[0]), "MiB"),
        "log.bar1_used": with_unit(mebibytes(bar1[1]), "MiB"),
        "log.bar1_free": with_unit(mebibytes(bar1[2]), "MiB"),
    }


_DEVICE: Mapping[str, Callable[[MigDevice], object]] = {
    "device.index": lambda device: device.index,
    "device.gpu_instance": lambda device: device.gpu_instance,
    "device.compute_instance": lambda device: device.compute_instance,
    "device.uuid": lambda device: device.uuid,
    "device.name": lambda device: device.name,
    "device.multiprocessors": lambda device: device.multiprocessors,
    "device.copy_engines": lambda device: device.copy_engines,
    "device.encoders": lambda device: device.encoders,
    "device.decoders": lambda device: device.decoders,
    "device.ofa_engines": lambda device: device.ofa_engines,
    "device.jpeg_engines": lambda device: device.jpeg_engines,
    "device.ecc_errors": lambda _device: 0,
    "device.total": lambda device: device.memory.total >> 20,
    "device.reserved": lambda device: device.memory.reserved >> 20,
    "device.used": lambda device: device.memory.used >> 20,
    "device.free": lambda device: device.memory.free >> 20,
    "device.bar1_total": lambda device: device.bar1.total >> 20,
    "device.bar1_used": lambda device: device.bar1.used >> 20,
    "device.bar1_free": lambda device: (device.bar1.total - device.bar1.used) >> 20,
}
DEVICE_NAMES = tuple(_DEVICE)


def device_texts(device: MigDevice) -> dict[str, str]:
    """What lines may say of a MIG device, by DEVICE_NAMES."""
    return {name: str(value(device)) for name, value in _DEVICE.items()}


def machine_texts(versions: Versions, *, count: int, timestamp: str, date: str) -> dict[str, str]:
    """What lines may say of the machine. ``count``: of its GPUs."""
    return {
        "driver_version": versions.driver,
        "cuda_version": versions.cuda,
        "count": str(count),
        "timestamp": timestamp,
        "date": date,
    }


def process_texts(process: Process) -> dict[str, str]:
    """What lines may say of a process."""
    return {
        "process.gpu_instance": with_unit(process.gpu_instance, ""),
        "process.compute_instance": with_unit(process.compute_instance, ""),
        "process.pid": str(process.pid),
        "process.name": process.name or "[Not Found]",
        "process.memory": with_unit(mebibytes(process.used_bytes), "MiB"),
        "process.table.name": (process.name or "[Not Found]")[-_PROCESS_ROOM:],
        "process.table.memory": _glued(mebibytes(process.used_bytes), "MiB"),
    }


def _glued(value: int | None, unit: str) -> str:
    return NOT_AVAILABLE if value is None else f"{value}{unit}"


def _whole_watts(milliwatts: int | None) -> int | None:
    return None if milliwatts is None else round(milliwatts / 1000)


def filled(lines: Iterable[Line], texts: Mapping[str, str]) -> str:
    return "".join(line.filled(texts) for line in lines)
