"""From the configuration to the adapters of this node's hardware and driver files: which root is where.

Three places matter. The driver root is where the NVIDIA driver is installed on the host; the container driver root is
that folder as this process sees it; the host root is the host's ``/`` as this process sees it. Outside a container the
second does not exist, and the first is used as it is. Simulated GPUs come with a tree that is driver root and host root
at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from api.driver_config import DriverSpec
from dra_driver.cdi.edits import DriverEdits
from dra_driver.cdi.hooks import HookPlace
from dra_driver.cdi.mig_capabilities import capability_major, read_mig_capabilities
from dra_driver.cdi.roots import DriverRoots, Root
from dra_driver.cdi.spec import DeviceNode
from dra_driver.errors import HardwareError
from dra_driver.hardware.compute_policy import ComputePolicy
from dra_driver.hardware.kernel_module import module_version
from dra_driver.hardware.nvidia_smi import NvidiaSmi, SmiObserver
from dra_driver.hardware.nvml import NvmlHardware, Reading, loaded_library
from dra_driver.hardware.nvml.library import find_library
from dra_driver.hardware.sysfs import Sysfs
from kubelet_plugin.hardware.obstacles import Edits, LookForObstacles, obstacles_of
from kubelet_plugin.hardware.watch import Hardware

logger = logging.getLogger(__name__)

_HOOK = "/usr/bin/nvidia-cdi-hook"
# Where the container toolkit of the GPU Operator puts it.
_OPERATOR_HOOK = "/usr/local/nvidia/toolkit/nvidia-cdi-hook"


class SimulatedHardware:
    """Simulated GPUs behind the real adapter. The state file is read at each start, so a bad one may be mended."""

    def __init__(self, state_file: Path, nvml: NvmlHardware) -> None:
        self._state_file = state_file
        self._nvml = nvml
        self._installed = False

    def start(self) -> None:
        if not self._installed:
            # Imported here: a plugin on real hardware has no use for the simulation.
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


def build_hardware(spec: DriverSpec) -> Hardware:
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


def build_edits(spec: DriverSpec) -> DriverEdits:
    """Looks at the driver's files only when asked for edits."""
    root = driver_root(spec)
    host = Root(spec.hardware.host_root, "/")
    roots = DriverRoots(root, fallback_dev=host, sysfs=spec.hardware.host_root / "sys")
    return DriverEdits(roots, _hooks(spec, root, host), loaded_library=loaded_library)


def build_obstacles(spec: DriverSpec, edits: Edits) -> LookForObstacles:
    """What keeps containers of this node from getting GPUs."""
    return obstacles_of(edits, lambda: capability_major(spec.hardware.host_root))


def build_capabilities(spec: DriverSpec) -> Callable[[int, int, int], Sequence[DeviceNode]]:
    """The nodes of a compute instance of a GPU instance of a GPU, by minor number and ids; see ``kinds.mig``."""
    host_root = spec.hardware.host_root

    def capabilities(gpu_minor: int, gpu_instance: int, compute_instance: int, /) -> Sequence[DeviceNode]:
        return read_mig_capabilities(host_root, gpu_minor, gpu_instance, compute_instance).device_nodes()

    return capabilities


def build_compute_policy(spec: DriverSpec, observer: SmiObserver) -> ComputePolicy:
    """How GPUs share their time. Works once the hardware is started."""
    root = driver_root(spec).visible
    # On the host itself the dynamic linker knows best; the libraries of simulated GPUs are no libraries.
    linker_knows = root == Path("/") or spec.hardware.simulated_state is not None
    library = (lambda: None) if linker_knows else (lambda: find_library(root))
    return ComputePolicy(NvidiaSmi(root, spec.hardware.nvidia_smi_timeout, library, observer))


def read_boot_id(spec: DriverSpec) -> str:
    """The boot id; this process's own /proc has the same one as the host's, for it belongs to the kernel."""
    try:
        return Sysfs(spec.hardware.host_root).boot_id()
    except HardwareError as error:
        logger.info("%s; using this process's /proc", error)
        return Sysfs(Path("/")).boot_id()


def host_file(spec: DriverSpec, path: Path) -> Path:
    """A file of the host, links followed in there, as this process sees it."""
    host, inner = Root(spec.hardware.host_root, "/"), str(path)
    return host.visible_path(host.resolve(inner) or inner)


def _hooks(spec: DriverSpec, root: Root, host: Root) -> tuple[HookPlace, ...]:
    configured = spec.cdi.hook_path
    if configured is not None:
        # A simulated host is not at "/", so a path in its tree is the host's path already.
        where = Root(Path("/")) if spec.hardware.simulated_state else host
        return (HookPlace(where, str(configured), required=True),)
    if spec.hardware.simulated_state is not None:
        return (HookPlace(root, _HOOK),)
    return HookPlace(root, _HOOK), HookPlace(host, _HOOK), HookPlace(host, _OPERATOR_HOOK)
