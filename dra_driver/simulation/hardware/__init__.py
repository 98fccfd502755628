"""Simulated GPUs at NVML's C interface, in pure Python, with their state in a file that processes share.

``create_state`` writes the state of a recorded (or captured) machine; ``install`` puts the simulated library in the
place of libnvidia-ml for this process, so that pynvml and our adapter run for real on it. ``faults`` plays what goes
wrong, ``driver`` replaces the driver under running processes, ``host_root`` builds the node's file tree, ``smi`` is its
nvidia-smi, ``node_folder`` makes a node's files.

Who owns what: ``description`` the machine files, ``state`` what can change, ``state_file`` the file that processes
share, ``library`` the C interface with ``system``, ``device``, ``telemetry``, ``mig`` and ``events`` as its functions,
``placing`` what fits on a GPU, ``idle`` what a board reads, ``capabilities`` and ``host_mirror`` what the tree shows of
the state.
"""

from __future__ import annotations

from pathlib import Path

from dra_driver.hardware.nvml import binding
from dra_driver.simulation.hardware.description import (
    MachineDescription,
    MachineFileError,
    load_machine,
    recorded_machines,
)
from dra_driver.simulation.hardware.library import SimulatedLibrary
from dra_driver.simulation.hardware.state import SimulatedState
from dra_driver.simulation.hardware.state_file import StateFile, create_state

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


def install(state_file: Path) -> None:
    """From now on this process's NVML is the simulated one with the state in ``state_file``.

    HardwareUnavailable when the file is not a state. Call it before NVML is initialised.
    """
    file = StateFile(state_file)
    file.read()
    binding.replace(SimulatedLibrary(file))


def uninstall() -> None:
    """Forget the simulated library; the next initialisation loads the real one."""
    binding.replace(None)
