"""From the configuration to this node's NVML: which root is where.

Three places matter. The driver root is where the NVIDIA driver is installed on the host; the container driver root is
that folder as this process sees it; the host root is the host's ``/`` as this process sees it. Outside a container the
second does not exist, and the first is used as it is. Simulated GPUs come with a tree that is driver root and host root
at once.
"""

from __future__ import annotations

import threading
from pathlib import Path

from api.driver_config import DriverSpec
from dra_driver.cdi.roots import Root
from dra_driver.hardware.cgroups import CgroupHierarchy
from dra_driver.hardware.kernel_module import module_version
from dra_driver.hardware.nvml import NvmlHardware, Reading
from dra_driver.hardware.sysfs import Sysfs

_SIMULATED_CLIENT = Path("/usr/bin/simulated-cuda-client")


class SimulatedHardware:
    """Simulated GPUs behind the real adapter. The state file is read at each start, so a bad one may be mended.

    Thread-safe, as the adapter is.
    """

    def __init__(self, state_file: Path, nvml: NvmlHardware) -> None:
        self._state_file = state_file
        self._nvml = nvml
        self._installing = threading.Lock()
        self._installed = False

    def start(self) -> None:
        with self._installing:  # a second library would take the place of one that is in use
            if not self._installed:
                # Imported here: a process on real hardware has no use for the simulation.
                from dra_driver.simulation.hardware import install

                install(self._state_file)
                self._installed = True
        self._nvml.start()

    def stop(self) -> None:
        self._nvml.stop()

    def read(self) -> Reading:
        return self._nvml.read()


def driver_root(spec: DriverSpec) -> Root:
    """The driver root, as this process and as the host sees it."""
    hardware = spec.hardware
    inside = hardware.container_driver_root
    visible = inside if inside.is_dir() else hardware.driver_root
    return Root(visible, str(hardware.driver_root))


def build_hardware(spec: DriverSpec) -> NvmlHardware | SimulatedHardware:
    """Not started: NVML is loaded at its start."""
    root = driver_root(spec)
    visible, host_root = root.visible, spec.hardware.host_root
    nvml = NvmlHardware(
        # On the host itself the dynamic linker knows best where the library is.
        driver_root=None if visible == Path("/") else visible,
        topology=Sysfs(host_root),
        # The host's root shows what is mounted there now, our own mount of the driver root what was when we started.
        fresh_root=Root(host_root, "/").visible_path(root.host),
        module_version=lambda: module_version(host_root),
    )
    state_file = spec.hardware.simulated_state
    return nvml if state_file is None else SimulatedHardware(state_file, nvml)


def cgroup_hierarchy(spec: DriverSpec) -> CgroupHierarchy:
    """In which cgroups GPU memory is limited: the kernel's cgroup v2. A simulated node says which it takes instead.

    Raises HardwareUnavailable when the simulated node's state cannot be read.
    """
    state_file = spec.hardware.simulated_state
    if state_file is None:
        return CgroupHierarchy()
    # Imported here, as above.
    from dra_driver.simulation.hardware import StateFile

    return StateFile(state_file).read().hierarchy


def host_proc(spec: DriverSpec) -> Path:
    """The host's processes, as this process sees them. A simulated node's tree has none; there ours must be its."""
    return Path("/proc") if spec.hardware.simulated_state is not None else spec.hardware.host_root / "proc"


def read_boot_id(spec: DriverSpec) -> str:
    """The kernel's boot id, which this process's /proc has as well as the host's; a simulated node has one in its tree.

    Raises HardwareError while the tree has none. The kernel's is nothing to go by there: once the tree is complete, all
    that was written down with it would pass for another boot's.
    """
    is_simulated = spec.hardware.simulated_state is not None
    return Sysfs(spec.hardware.host_root if is_simulated else Path("/")).boot_id()


def canary_program(spec: DriverSpec) -> Path | None:
    """A program below the driver root that uses a GPU for a moment; None where nobody has given one. A simulated node
    has one."""
    return spec.mps.canary_program or (_SIMULATED_CLIENT if spec.hardware.simulated_state is not None else None)
