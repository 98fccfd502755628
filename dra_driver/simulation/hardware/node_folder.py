"""A simulated node's folder: ``gpus.json`` (the hardware's state) and ``host`` (the node's file tree).

Made at every start of a pod, while an older pod may be using it. So what is there stays if it is of the same machine
and seed: the state with its faults and MIG devices, and every file of the tree that is right.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from dra_driver.errors import HardwareUnavailable, StateError
from dra_driver.simulation.hardware import host_root
from dra_driver.simulation.hardware.description import MachineDescription
from dra_driver.simulation.hardware.state import SimulatedState, initial_state
from dra_driver.simulation.hardware.state_file import StateFile

logger = logging.getLogger(__name__)

STATE_FILE = "gpus.json"
HOST_FOLDER = "host"


@dataclass(frozen=True, slots=True)
class MadeNode:
    """What :func:`make_node` did. ``outdated``: the kept state was made from another text of the same machine.

    ``no_library``: why other programs cannot load libnvidia-ml from the tree; "" when they can.
    """

    folder: Path
    state: SimulatedState
    created: bool
    outdated: bool
    files_changed: int
    no_library: str = ""

    def sentence(self) -> str:
        gpus = len(self.state.gpus)
        file, host = self.folder / STATE_FILE, self.folder / HOST_FOLDER
        done = "made" if self.created else "kept as it was"
        note = "; the machine's description has changed since, --replace takes the new one" if self.outdated else ""
        said = (
            f"{self.state.machine.name} ({gpus} GPU{'' if gpus == 1 else 's'}), seed {self.state.seed!r}: "
            f"{file} {done}, {self.files_changed} files of {host} changed{note}"
        )
        if not self.no_library:
            return said
        return f"{said}\nno program can load libnvidia-ml.so.1 from it: {self.no_library}"


def make_node(
    folder: Path, machine: MachineDescription, seed: str, *, driver: str | None = None, replace: bool = False
) -> MadeNode:
    """Make or complete ``folder``; ``replace`` makes a state anew where a different one is.

    ``driver``: a version in the place of the machine's, for a state that is made now; one that is kept keeps its own.
    Raises ValueError (pydantic's) for what is no version, StateError when another machine or another seed is there,
    HardwareUnavailable when the state cannot be read, OSError when something cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = StateFile(folder / STATE_FILE)
    wanted = initial_state(machine, seed, driver=driver)
    state, created = _replaced(file, wanted) if replace else _kept(file, wanted)
    changed = host_root.build(folder / HOST_FOLDER, file.path)
    no_library = host_root.no_library(folder / HOST_FOLDER)
    return MadeNode(folder, state, created, state.machine != machine, changed, no_library)


def _kept(file: StateFile, wanted: SimulatedState) -> tuple[SimulatedState, bool]:
    try:
        state, created = file.create(wanted)
    except HardwareUnavailable as error:
        raise HardwareUnavailable(error.message, hint=f"delete {file.path}, or use --replace") from error
    if not _same_node(state, wanted):
        raise StateError(
            f"{file.path} is machine {state.machine.name}, seed {state.seed!r}; "
            f"asked for is {wanted.machine.name}, seed {wanted.seed!r}",
            hint=f"delete {file.path.parent}, or use --replace; pods that run on it lose their GPUs",
        )
    return state, created


def _replaced(file: StateFile, wanted: SimulatedState) -> tuple[SimulatedState, bool]:
    try:
        state, created = file.create(wanted)
        if _same_node(state, wanted) and state.machine == wanted.machine:
            return state, created
    except HardwareUnavailable as error:
        logger.info("replacing %s: %s", file.path, error)
    file.write(wanted)
    return wanted, True


def _same_node(state: SimulatedState, wanted: SimulatedState) -> bool:
    """By name: UUIDs come from it, so a new release's better description of the machine is no other node."""
    return (state.machine.name, state.seed) == (wanted.machine.name, wanted.seed)
