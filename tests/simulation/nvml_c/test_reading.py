"""The contract of the C library: each function that reads answers as the simulation in Python does, on every machine."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pynvml
import pytest

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import faults, load_machine, recorded_machines, time_slice
from dra_driver.simulation.hardware.description import (
    ComputeInstanceDescription,
    MachineDescription,
    MigDescription,
    MigInstanceDescription,
)
from dra_driver.simulation.hardware.library import FUNCTIONS
from tests.simulation.nvml_c.signatures import CHANGING, READING, ways
from tests.simulation.nvml_c.twins import Twins, behind, given, needs_compiler

pytestmark = needs_compiler


def with_mig(name: str) -> MachineDescription:
    """The machine with instances on its last GPU: one for each profile that still fits, the first with parts."""
    machine = load_machine(name)
    hardware = machine.hardware
    profiles = hardware.product_of(len(hardware.gpus) - 1).mig_profiles
    if profiles is None:
        return machine
    free = set(range(max(each.placements.size for each in profiles)))
    instances: list[MigInstanceDescription] = []
    for profile in sorted(profiles, key=lambda each: (-each.slices, each.id)):
        for start in profile.placements.starts:
            run = set(range(start, start + profile.placements.size))
            if len(run) <= 4 and run <= free and len(instances) < 3:
                free -= run
                parts = tuple(ComputeInstanceDescription(start=each, slices=1) for each in range(profile.slices))
                instances.append(
                    MigInstanceDescription(
                        profile=profile.id, start=start, compute_instances=None if instances else parts[:2]
                    )
                )
                break
    mig = MigDescription(enabled=True, instances=tuple(instances))
    gpus = (*hardware.gpus[:-1], hardware.gpus[-1].model_copy(update={"mig": mig}))
    return machine.model_copy(update={"hardware": hardware.model_copy(update={"gpus": gpus})})


def handles_of(twins: Twins) -> list[Any]:
    """One of each kind that the machine has, and some that are none."""
    last = len(twins.c.state.gpus) - 1
    found = [twins.gpu(0), twins.gpu(last)]
    gpu = twins.c.state.gpus[last]
    for index, _ in enumerate(gpu.mig_devices()):
        found.append(twins.handle("nvmlDeviceGetMigDeviceHandleByIndex", found[1], index))
    for instance in gpu.instances:
        found.append(twins.handle("nvmlDeviceGetGpuInstanceById", found[1], instance.id))
        for compute in instance.compute_instances:
            found.append(twins.handle("nvmlGpuInstanceGetComputeInstanceById", found[-1], compute.id))
            break
    found.append(twins.handle("nvmlEventSetCreate"))
    return [*found, None, ctypes.c_void_p(1), ctypes.c_void_p(0x6E760001), ctypes.c_void_p(0x7FFFFFFF00)]


def test_every_function_has_a_test_and_an_export(tmp_path: Path) -> None:
    published = set(FUNCTIONS) - set(time_slice.FUNCTIONS)
    assert published == set(READING) | CHANGING
    library = Twins(tmp_path, "t4").library
    assert [name for name in sorted(published) if not hasattr(library, name)] == []


@pytest.mark.parametrize("name", recorded_machines())
def test_reads_as_python_does(tmp_path: Path, name: str) -> None:
    twins = Twins(tmp_path, with_mig(name))
    for function, values in READING.items():
        way = next(ways(values))
        twins.call(function, behind(None, way) if FUNCTIONS[function].kinds else way)
    twins.start()
    handles = handles_of(twins)
    uuid = twins.c.state.gpus[0].uuid
    for path in (twins.c.state_file, twins.python.state_file):
        faults.add_client(path, uuid, pid=4242)
        faults.add_client(path, uuid, pid=4243)
    answers = 0
    for function, values in READING.items():
        for way in ways(values):
            calls = [behind(handle, way) for handle in handles] if FUNCTIONS[function].kinds else [way]
            answers += sum(twins.call(function, each).code == Return.SUCCESS for each in calls)
    assert answers > 80


@pytest.mark.parametrize("name", recorded_machines())
def test_devices_are_found_by_what_they_are_called(tmp_path: Path, name: str) -> None:
    twins = Twins(tmp_path, with_mig(name))
    twins.start()
    state = twins.c.state
    for index, (gpu, described) in enumerate(zip(state.gpus, state.machine.hardware.gpus, strict=True)):
        handle = twins.gpu(index)
        assert twins.handle("nvmlDeviceGetHandleByUUID", gpu.uuid.encode()).value == handle.value
        for bus_id in (described.pci_bus_id, described.pci_bus_id.upper(), f"0000{described.pci_bus_id}"):
            assert twins.handle("nvmlDeviceGetHandleByPciBusId_v2", bus_id.encode()).value == handle.value
        for _, compute in gpu.mig_devices():
            assert twins.handle("nvmlDeviceGetHandleByUUID", compute.uuid.encode()).value != handle.value


@pytest.mark.parametrize("driver", ["580.105.08", "590.44.01", "615.71.09", "999.1"])
def test_versions_follow_the_driver(tmp_path: Path, driver: str) -> None:
    twins = Twins(tmp_path, "l40s", driver)
    twins.start()
    for name in READING:
        if name.startswith("nvmlSystemGet") and "Process" not in name:
            for way in ways(READING[name]):
                twins.call(name, way)
    empty = pynvml.c_nvmlGetMemoryLimits_v1_t()
    empty.nameSpace = b"/sys/fs/cgroup/nothing"
    for name in ("nvmlDeviceGetMemoryLimits_v1", "nvmlDeviceSetMemoryLimits_v1"):
        answer = twins.call(name, given(None, ctypes.byref(empty)))
        newer = int(driver.split(".")[0]) >= 615
        assert answer.code == (Return.INVALID_ARGUMENT if newer else Return.FUNCTION_NOT_FOUND)


def test_every_code_has_a_text(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "t4")
    library = twins.library
    library.nvmlErrorString.restype = ctypes.c_char_p
    simulated = twins.simulated.nvmlErrorString
    for code in (*range(-1, 40), 77, 998, 999, 1000):
        assert library.nvmlErrorString(code) == simulated(code)
