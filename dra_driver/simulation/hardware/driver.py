"""Another driver version on a simulated node that is in use: an update, or the parts of one that come one by one.

Processes that have initialised the library keep the one they have, as they keep a mapped file. While the kernel module
is another they get NVML's "driver/library version mismatch"; a process that starts afterwards does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dra_driver.simulation.hardware import host_root
from dra_driver.simulation.hardware.state import DriverState
from dra_driver.simulation.hardware.state_file import StateFile


@dataclass(frozen=True, slots=True)
class ReplacedDriver:
    """What is there now. ``files_changed`` counts those of the node's tree."""

    driver: DriverState
    files_changed: int

    def sentence(self) -> str:
        libraries, module = self.driver.library or "none", self.driver.module or "none loaded"
        return f"driver libraries: {libraries}; kernel module: {module}; {self.files_changed} files of the tree changed"


def replace_driver(state_file: Path, *, libraries: str | None, module: str | None) -> ReplacedDriver:
    """Have the files of driver version ``libraries`` on the node, and ``module`` loaded; None takes either away.

    ValueError (pydantic's) for what is no version, HardwareUnavailable when the state cannot be read, OSError when
    something cannot be written.
    """
    driver = DriverState(library=libraries, module=module)
    file = StateFile(state_file)
    file.read()  # says that there is no node here, where an update would leave a lock, or not find its folder
    state = file.update(lambda state: state.model_copy(update={"driver": driver}))
    root = state_file.parent / state.host_tree if state.host_tree is not None else None
    return ReplacedDriver(driver, host_root.build(root, state_file) if root is not None else 0)
