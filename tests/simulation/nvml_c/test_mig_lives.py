"""The contract of the C library: what changes MIG, by random lives of a machine, and what its file tree shows then."""

from __future__ import annotations

import ctypes
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pynvml
import pytest

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import capabilities, faults, load_machine, recorded_machines
from tests.simulation.nvml_c.signatures import mig_mode
from tests.simulation.nvml_c.twins import Answer, Arguments, Twins, given, needs_compiler

pytestmark = needs_compiler

MACHINES_WITH_MIG = tuple(
    name for name in recorded_machines() if load_machine(name).hardware.product_of(0).mig_profiles is not None
)
STEPS = 120


def placement(start: int, size: int) -> Any:
    where = pynvml.c_nvmlGpuInstancePlacement_t()
    where.start, where.size = start, size
    return where


class Life:
    """Random calls that change the MIG of a machine's first two GPUs, some of them wrong."""

    def __init__(self, twins: Twins, seed: int) -> None:
        self._twins = twins
        self._random = random.Random(seed)
        self._gpus = [twins.gpu(0), twins.gpu(1)]
        self._instances: list[Any] = []
        self._computes: list[Any] = []
        self._clients: list[tuple[str, int]] = []
        self.codes: set[int] = set()

    def step(self) -> None:
        name = self._random.choices(
            ("mode", "instance", "compute", "destroy", "destroy_compute", "client", "compute_mode", "reset"),
            (1, 8, 9, 4, 5, 2, 1, 1 / 4),
        )[0]
        getattr(self, f"_{name}")()

    def _call(self, name: str, make: Callable[[], Arguments]) -> Answer:
        answer = self._twins.call(name, make)
        self.codes.add(answer.code)
        return answer

    def _made(self, name: str, *arguments: Any) -> list[Any]:
        made: list[Any] = []

        def make() -> Arguments:
            made.append(ctypes.c_void_p())
            return Arguments((*arguments, ctypes.byref(made[-1])), (made[-1],))

        return made[-1:] if self._call(name, make).code == Return.SUCCESS else []

    def _mode(self) -> None:
        self._call("nvmlDeviceSetMigMode", mig_mode(self._random.choice(self._gpus), self._random.choice((1, 1, 0, 2))))

    def _instance(self) -> None:
        profiles = load_machine(self._twins.c.state.machine.name).hardware.product_of(0).mig_profiles or ()
        profile = self._random.choice(profiles)
        start = self._random.choice((*profile.placements.starts, 1))
        size = profile.placements.size if self._random.random() < 0.9 else 3
        gpu = self._random.choice(self._gpus)
        if self._random.random() < 0.5:
            self._instances += self._made("nvmlDeviceCreateGpuInstance", gpu, profile.id)
        else:
            where = ctypes.byref(placement(start, size))
            self._instances += self._made("nvmlDeviceCreateGpuInstanceWithPlacement", gpu, profile.id, where)

    def _compute(self) -> None:
        if not self._instances:
            return
        instance, profile = self._recent(self._instances), self._random.choice((0, 0, 0, 1, 2, 3, 4, 7))
        if self._random.random() < 0.6:
            self._computes += self._made("nvmlGpuInstanceCreateComputeInstance", instance, profile)
        else:
            where = ctypes.byref(placement(self._random.randrange(4), self._random.choice((1, 1, 2))))
            name = "nvmlGpuInstanceCreateComputeInstanceWithPlacement"
            self._computes += self._made(name, instance, profile, where)

    def _destroy(self) -> None:
        if self._instances:
            self._call("nvmlGpuInstanceDestroy", given(self._recent(self._instances)))

    def _destroy_compute(self) -> None:
        if self._computes:
            self._call("nvmlComputeInstanceDestroy", given(self._recent(self._computes)))

    def _recent(self, handles: list[Any]) -> Any:
        """Mostly one that is likely to be there still."""
        return self._random.choice(handles[-5:] if self._random.random() < 0.8 else handles)

    def _client(self) -> None:
        if self._clients and self._random.random() < 0.7:
            uuid, pid = self._clients.pop()
            devices = {compute.uuid for gpu in self._twins.c.state.gpus for _, compute in gpu.mig_devices()}
            if uuid in devices | {gpu.uuid for gpu in self._twins.c.state.gpus}:
                self._twins.change(lambda path: faults.remove_client(path, uuid, pid=pid))
            return
        gpu = self._twins.c.state.gpus[self._random.randrange(2)]
        uuid = self._random.choice([gpu.uuid, *(compute.uuid for _, compute in gpu.mig_devices())])
        self._clients.append((uuid, self._random.randrange(1000, 2000)))
        self._twins.change(lambda path: faults.add_client(path, uuid, pid=self._clients[-1][1]))

    def _compute_mode(self) -> None:
        gpu, mode = self._random.choice(self._gpus), self._random.randrange(6)
        self._call("nvmlDeviceSetComputeMode", given(gpu, mode))

    def _reset(self) -> None:
        index = self._random.randrange(2)
        self._twins.change(lambda path: faults.reset_gpu(path, index))


@pytest.mark.parametrize("name", MACHINES_WITH_MIG)
def test_a_life_of_mig(tmp_path: Path, name: str) -> None:
    twins = Twins(tmp_path, name)
    twins.start()
    for index in range(2):  # Ampere needs a reset
        twins.call("nvmlDeviceSetMigMode", mig_mode(twins.gpu(index), 1))
        twins.change(partial(faults.reset_gpu, index=index))
    life = Life(twins, seed=7)
    for step in range(STEPS):
        life.step()
        if step % 30 == 0:
            twins.check_states()
    twins.check_states()
    assert {Return.SUCCESS, Return.IN_USE, Return.INSUFFICIENT_RESOURCES, Return.INVALID_ARGUMENT} <= life.codes


def test_a_tree_that_cannot_be_written_is_an_error_of_the_call(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "h100-nvl")
    twins.start()
    gpu = twins.gpu(0)
    twins.call("nvmlDeviceSetMigMode", mig_mode(gpu, 1))
    for node in (twins.python, twins.c):
        (node.root / capabilities.FOLDER / "gpu0").touch()  # where a folder must be
    nowhere = ctypes.byref(ctypes.c_void_p())
    assert twins.call("nvmlDeviceCreateGpuInstance", given(gpu, 9, nowhere)).code == Return.OPERATING_SYSTEM


def test_a_tree_that_is_gone_stops_no_change(tmp_path: Path) -> None:
    twins = Twins(tmp_path, "h100-nvl")
    twins.start()
    gpu = twins.gpu(0)
    for node in (twins.python, twins.c):
        shutil.rmtree(node.root)
    twins.call("nvmlDeviceSetMigMode", mig_mode(gpu, 1))
    assert twins.call("nvmlDeviceCreateGpuInstance", given(gpu, 9, ctypes.byref(ctypes.c_void_p()))).code == 0
    assert not twins.c.root.exists()
