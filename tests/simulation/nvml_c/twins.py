"""Two nodes of one machine and seed: one answers through the simulation in Python, the other through the C library.

Every call goes to both with arguments of the same kind and must have the same code and write the same bytes (not looked at
after "invalid argument", where the one may have found out before the other has written half). Handles are
numbers by which a library counts what it gave out, so they are the same too, as long as the calls were.
"""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import MachineDescription, SimulatedLibrary, StateFile, create_state, host_root
from dra_driver.simulation.hardware.state import ClientState, SimulatedState
from dra_driver.simulation.nvml_c.building import COMPILER

needs_compiler = pytest.mark.skipif(shutil.which(COMPILER) is None, reason="no C compiler (cc) on the PATH")

LIBRARY = f"{host_root.LIBRARY_FOLDER}/libnvidia-ml.so.1"


@dataclass(frozen=True, slots=True)
class Arguments:
    """For one call: what is passed, and what the function may write."""

    passed: Sequence[Any] = ()
    written: Sequence[Any] = ()

    def __add__(self, other: Arguments) -> Arguments:
        return Arguments((*self.passed, *other.passed), (*self.written, *other.written))


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    written: tuple[bytes, ...]


def given(*values: Any) -> Callable[[], Arguments]:
    """Arguments that no function writes to, or nobody looks at."""
    return lambda: Arguments(values)


def behind(handle: Any, way: Callable[[], Arguments]) -> Callable[[], Arguments]:
    return lambda: Arguments((handle,)) + way()


class SimulatedNode:
    """A node's folder, and a library over its state."""

    def __init__(self, folder: Path, machine: str | MachineDescription, driver: str | None) -> None:
        folder.mkdir()
        self.state_file = folder / "state.json"
        self.root = folder / "host"
        create_state(machine, self.state_file, seed="twin", driver=driver)
        host_root.build(self.root, self.state_file)
        self.file = StateFile(self.state_file)

    @property
    def state(self) -> SimulatedState:
        return self.file.read()

    def set_clients(self, *clients: ClientState) -> None:
        """Of the first GPU, in the place of those that it had."""
        self.file.update(lambda state: state.with_gpu(0, state.gpus[0].model_copy(update={"clients": clients})))


class Twins:
    def __init__(self, folder: Path, machine: str | MachineDescription, driver: str | None = None) -> None:
        self.python = SimulatedNode(folder / "python", machine, driver)
        self.c = SimulatedNode(folder / "c", machine, driver)
        self.simulated = SimulatedLibrary(self.python.file)
        # Under another name: what looks for libnvidia-ml among this process's mappings must not find it.
        library = self.c.root / LIBRARY
        self.library = ctypes.CDLL(str(shutil.copy(library, library.with_name("nvml-under-test.so"))))

    def call(self, name: str, make: Callable[[], Arguments] = Arguments) -> Answer:
        """Both answers, which are the same. ``make`` is called for each library."""
        theirs = _answer(self.library, name, make())
        ours = _answer(self.simulated, name, make())
        assert theirs == ours, f"{name}({make().passed}): C answers {theirs}, Python {ours}"
        return ours

    def start(self) -> None:
        assert self.call("nvmlInitWithFlags", lambda: Arguments((1,))).code == Return.SUCCESS

    def change(self, change: Callable[[Path], object]) -> None:
        """Have ``change`` done to both states, from outside."""
        for node in (self.python, self.c):
            change(node.state_file)

    def handle(self, name: str, *arguments: Any) -> Any:
        """What the function gives last: a handle, for both."""
        made: list[Any] = []

        def make() -> Arguments:
            made.append(ctypes.c_void_p())
            return Arguments((*arguments, ctypes.byref(made[-1])), (made[-1],))

        assert self.call(name, make).code == Return.SUCCESS
        return made[-1]

    def gpu(self, index: int) -> Any:
        return self.handle("nvmlDeviceGetHandleByIndex_v2", index)

    def check_states(self) -> None:
        """Both files say the same, and the C library's tree shows it as one that is built now."""
        assert self.c.state.model_copy(update={"host_tree": None}) == self.python.state.model_copy(
            update={"host_tree": None}
        )
        assert host_root.build(self.c.root, self.c.state_file) == 0


def _answer(library: Any, name: str, arguments: Arguments) -> Answer:
    try:
        function = getattr(library, name)
    except AttributeError:
        code = int(Return.FUNCTION_NOT_FOUND)
    else:
        code = function(*arguments.passed)
    if code == Return.INVALID_ARGUMENT:
        return Answer(code, ())
    return Answer(code, tuple(bytes(each) for each in arguments.written))
