from __future__ import annotations

from collections.abc import Iterator

import pytest

from dra_driver.hardware.model import Machine
from dra_driver.hardware.nvml import NvmlHardware
from dra_driver.simulation.hardware import create_state, install, uninstall
from tests.controller.sharing_cluster import Cluster
from tests.controller.world import World


@pytest.fixture(scope="session")
def a100(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Eight A100, as the plugin's NVML adapter reads them from the simulated library."""
    return _read("a100-sxm4-40gb", tmp_path_factory)


@pytest.fixture(scope="session")
def t4(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return _read("t4", tmp_path_factory)


@pytest.fixture(scope="session")
def h100(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return _read("h100-sxm5-80gb", tmp_path_factory)


def _read(name: str, folders: pytest.TempPathFactory) -> Machine:
    state_file = folders.mktemp(name) / "state.json"
    create_state(name, state_file)
    install(state_file)
    hardware = NvmlHardware()
    try:
        hardware.start()
        return hardware.read_machine()
    finally:
        hardware.stop()
        uninstall()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


@pytest.fixture
def cluster(world: World) -> Cluster:
    return Cluster(world)
