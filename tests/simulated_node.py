"""Fixtures: a simulated node whose library stands in for libnvidia-ml during one test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dra_driver.hardware.nvml import NvmlHardware, binding
from dra_driver.hardware.sysfs import Sysfs
from dra_driver.simulation.hardware import MachineDescription, StateFile, create_state, host_root, install, uninstall


class Node:
    """A simulated node: its state file, its file tree, and started hardware."""

    def __init__(self, folder: Path, machine: str | MachineDescription, seed: str, driver: str | None = None) -> None:
        self.state_file = folder / "state.json"
        self.root = folder / "root"
        create_state(machine, self.state_file, seed=seed, driver=driver)
        host_root.build(self.root, self.state_file)
        install(self.state_file)
        self.hardware = NvmlHardware(driver_root=self.root, topology=Sysfs(self.root))

    @property
    def file(self) -> StateFile:
        return StateFile(self.state_file)


NodeMaker = Callable[..., Node]


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[NodeMaker]:
    """``make_node(machine, seed="...", driver="...", start=True)``; the library is taken away again afterwards."""
    nodes: list[Node] = []

    def make(
        machine: str | MachineDescription, *, seed: str = "node-0", driver: str | None = None, start: bool = True
    ) -> Node:
        folder = tmp_path / f"node-{len(nodes)}"
        folder.mkdir()
        node = Node(folder, machine, seed, driver)
        nodes.append(node)
        if start:
            node.hardware.start()
        return node

    yield make
    for node in nodes:
        if binding.library() is not None:
            node.hardware.stop()
    uninstall()


@pytest.fixture
def no_library() -> Iterator[None]:
    """No library is loaded, before the test and after it."""
    uninstall()
    yield
    uninstall()
