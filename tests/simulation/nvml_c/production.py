"""Production code at NVML, through all that it does there: ``python -m tests.simulation.nvml_c.production ROOT``.

As a process of its own it loads the library that it finds below ROOT, as the plugin does, and prints what it saw; the
same code on the simulation in Python must see the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dra_driver.errors import HardwareError
from dra_driver.hardware.model import MigPlacement
from dra_driver.hardware.nvml import DeviceMemory, GpuEvents, MigControl, NvmlHardware
from dra_driver.hardware.nvml.compute_device import read_compute_device
from dra_driver.hardware.nvml.compute_mode import ComputeMode, compute_mode, is_there, set_compute_mode
from dra_driver.hardware.sysfs import Sysfs

PROFILE = 9  # 3g of A100, H100 and newer


def look(root: Path) -> Iterator[tuple[str, Any]]:
    """What production code sees and does on a machine whose first GPU can be divided at once; it leaves it as it was."""
    hardware = NvmlHardware(driver_root=root, topology=Sysfs(root))
    hardware.start()
    try:
        machine = hardware.read_machine()
        yield "machine", asdict(machine)
        yield "board", [asdict(hardware.read_board(gpu)) for gpu in machine.gpus]
        uuid, other = machine.gpus[0].uuid, machine.gpus[1].uuid
        yield "memory", [(DeviceMemory().free(gpu.uuid), DeviceMemory().is_idle(gpu.uuid)) for gpu in machine.gpus]
        yield from _modes(other)
        events = GpuEvents()
        yield "events", events.open()
        yield from _mig(uuid, MigControl(), hardware)
        yield "changes", [_event(events) for _ in range(8)]
        events.close()
    finally:
        hardware.stop()


def _modes(uuid: str) -> Iterator[tuple[str, Any]]:
    for mode in (ComputeMode.EXCLUSIVE_PROCESS, ComputeMode.DEFAULT):
        set_compute_mode(uuid, mode)
        yield "mode", (compute_mode(uuid).name, is_there(uuid), is_there("GPU-nothing"))
    yield "refused mode", _refusal(lambda: set_compute_mode(uuid, ComputeMode.EXCLUSIVE_THREAD))


def _mig(uuid: str, control: MigControl, hardware: NvmlHardware) -> Iterator[tuple[str, Any]]:
    control.set_mode(uuid, True)
    made = [control.create_gpu_instance(uuid, PROFILE, MigPlacement(start, 4)) for start in (4, 0)]
    yield "no room", _refusal(lambda: control.create_gpu_instance(uuid, PROFILE, MigPlacement(4, 4)))
    computes = [control.create_compute_instance(uuid, made[0], slices) for slices in (1, 1)]
    computes.append(control.create_compute_instance(uuid, made[1], 3))
    yield "instances", [asdict(each) for each in control.instances(uuid)]
    yield "devices", [asdict(device) for each in computes if (device := read_compute_device(each.uuid)) is not None]
    yield "machine with MIG", asdict(hardware.read_machine())
    yield (
        "busy",
        [
            _refusal(lambda: control.set_mode(uuid, False)),
            _refusal(lambda: control.destroy_gpu_instance(uuid, made[0])),
        ],
    )
    for instance in control.instances(uuid):
        for compute in instance.compute_instances:
            control.destroy_compute_instance(uuid, instance.id, compute.id)
        control.destroy_gpu_instance(uuid, instance.id)
    control.set_mode(uuid, False)
    yield "gone", [control.instances(uuid), [read_compute_device(each.uuid) for each in computes]]


def _event(events: GpuEvents) -> Any:
    event = events.wait(0.01)
    return None if event is None else asdict(event)


def _refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except HardwareError as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("it was not refused")


if __name__ == "__main__":
    json.dump(list(look(Path(sys.argv[1]))), sys.stdout)
