"""Simulated GPUs at NVML's C interface, in pure Python, with their state in a file that processes share.

``create_state`` writes the state of a recorded (or captured) machine; ``install`` puts the simulated library in the
place of libnvidia-ml for this process, so that pynvml and our adapter run for real on it. ``faults`` plays what goes
wrong, ``driver`` replaces the driver under running processes, ``host_root`` builds the node's file tree, ``smi`` is its
nvidia-smi, ``mps`` its nvidia-cuda-mps-control, ``node_folder`` makes a node's files.

Who owns what: ``description`` the machine files, ``state`` what can change, ``state_file`` the file that processes
share (``state_store`` its bytes), ``library`` the C interface with ``system``, ``device``, ``telemetry``, ``mig`` and
``events`` as its functions, ``placing`` what fits on a GPU, ``idle`` what a board reads, ``capabilities`` and
``host_mirror`` what the tree shows of the state.

What is named here is imported when it is asked for: the programs of ``mps`` start in milliseconds, and need none of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dra_driver.simulation.hardware.description import (
        MachineDescription,
        MachineFileError,
        load_machine,
        recorded_machines,
    )
    from dra_driver.simulation.hardware.library import SimulatedLibrary, install, uninstall
    from dra_driver.simulation.hardware.state import SimulatedState
    from dra_driver.simulation.hardware.state_file import StateFile, create_state

_HOMES = {
    "MachineDescription": "description",
    "MachineFileError": "description",
    "SimulatedLibrary": "library",
    "SimulatedState": "state",
    "StateFile": "state_file",
    "create_state": "state_file",
    "install": "library",
    "load_machine": "description",
    "recorded_machines": "description",
    "uninstall": "library",
}

__all__ = [
    "MachineDescription",
    "MachineFileError",
    "SimulatedLibrary",
    "SimulatedState",
    "StateFile",
    "create_state",
    "install",
    "load_machine",
    "recorded_machines",
    "uninstall",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no {name}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
