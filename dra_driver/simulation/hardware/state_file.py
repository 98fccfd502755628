"""The file that holds the simulated hardware's state, shared by every process that simulates the same node.

Readers parse again only when the file was replaced, and a writer does not read back what it wrote. What the node's file
tree shows of the state is changed under the same lock. How the file is locked and replaced: ``state_store``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import ValidationError

from dra_driver.errors import HardwareUnavailable
from dra_driver.simulation.hardware import host_mirror, state_store
from dra_driver.simulation.hardware.description import MachineDescription, load_machine
from dra_driver.simulation.hardware.state import SimulatedState, initial_state

_Version = tuple[int, int, int]


class StateFile:
    """One process's view of the state file. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = str(path)  # looked at in every simulated call, where pathlib costs more than the kernel
        self._lock = threading.Lock()
        self._known: tuple[_Version, SimulatedState] | None = None

    def read(self) -> SimulatedState:
        """The state now. HardwareUnavailable when the file is not there or not a state."""
        with self._lock:
            try:
                version = self._version()
                if self._known is None or version != self._known[0]:
                    self._known = (version, SimulatedState.model_validate_json(self.path.read_bytes()))
            except OSError as error:
                raise HardwareUnavailable(
                    f"cannot read simulated hardware {self.path}: {error.strerror}",
                    hint="create it first, with gpu-dra machine create",
                ) from error
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"]) or "the file"
                raise HardwareUnavailable(
                    f"simulated hardware {self.path} is not a valid state: {where}: {first['msg']}",
                    hint="create it again",
                ) from error
            return self._known[1]

    def update(self, change: Callable[[SimulatedState], SimulatedState]) -> SimulatedState:
        """Replace the state with ``change`` of it, alone among all processes. Writes nothing when nothing changes.

        ``change`` may refuse by raising. OSError when the file or the node's file tree cannot be written.
        """
        with self.exclusively():
            before = self.read()
            after = change(before)
            self.replace(after)
            return after

    def replace(self, state: SimulatedState) -> None:
        """Put ``state`` in the place of the one that is there, under :meth:`exclusively`."""
        before = self.read()
        if state != before:
            self._write(state)
            host_mirror.follow(self.path, before, state)

    def create(self, state: SimulatedState) -> tuple[SimulatedState, bool]:
        """Write ``state`` unless there is one, alone among all processes; the one that is there then, and if it is new.

        HardwareUnavailable when there is a file that is no state.
        """
        with self.exclusively():
            if self.path.exists():
                return self.read(), False
            self._write(state)
            return state, True

    def write(self, state: SimulatedState) -> None:
        """Put ``state`` in the place of whatever is there. A file tree that was made for it must be built again."""
        with self.exclusively():
            self._write(state)

    def _write(self, state: SimulatedState) -> None:
        data = state.model_dump_json(by_alias=True, exclude_none=True).encode()
        with self._lock:
            state_store.put(self.path, data)
            self._known = (self._version(), state)

    def _version(self) -> _Version:
        stat = os.stat(self._name)
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def exclusively(self) -> AbstractContextManager[None]:
        """Nobody else writes meanwhile. Not to be nested."""
        return state_store.exclusively(self.path)


def create_state(
    machine: str | Path | MachineDescription, state_file: Path, *, seed: str = "", driver: str | None = None
) -> SimulatedState:
    """Write the initial state of ``machine`` (a recorded name, a file, or a description) to ``state_file``.

    ``seed`` (a node's name, usually) makes UUIDs, serial numbers and the boot id differ between nodes of one machine;
    the same seed gives the same ones. ``driver``: a version in the place of the machine's. MachineFileError when the
    machine cannot be read.
    """
    description = machine if isinstance(machine, MachineDescription) else load_machine(machine)
    state = initial_state(description, seed, driver=driver)
    state_file.parent.mkdir(parents=True, exist_ok=True)
    StateFile(state_file).write(state)
    return state
