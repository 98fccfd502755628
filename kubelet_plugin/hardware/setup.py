"""From the configuration to the adapters of this node's driver files and what containers get of them.

``kubelet_plugin.node.hardware`` says which places there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from api.driver_config import DriverSpec
from dra_driver.cdi.edits import DriverEdits
from dra_driver.cdi.hooks import HookPlace
from dra_driver.cdi.mig_capabilities import capability_major, read_mig_capabilities
from dra_driver.cdi.roots import DriverRoots, Root
from dra_driver.cdi.spec import DeviceNode
from dra_driver.hardware.compute_policy import ComputePolicy
from dra_driver.hardware.nvidia_smi import NvidiaSmi, SmiObserver
from dra_driver.hardware.nvml import loaded_library
from dra_driver.hardware.nvml.library import find_library
from kubelet_plugin.hardware.obstacles import Edits, LookForObstacles, obstacles_of
from kubelet_plugin.node.hardware import driver_root

_HOOK = "/usr/bin/nvidia-cdi-hook"
# Where the container toolkit of the GPU Operator puts it.
_OPERATOR_HOOK = "/usr/local/nvidia/toolkit/nvidia-cdi-hook"


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
