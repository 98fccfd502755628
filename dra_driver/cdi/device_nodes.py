"""The NVIDIA device nodes of a node: which exist, with which numbers, under the root that holds ``/dev``.

Numbers come from the node itself (the major of nvidia-uvm is dynamic and changes with a reboot). Under a simulated root
nodes may be plain files; then ``dev/.simulated-devices.json`` has their numbers: ``{"nvidia0": [195, 0], ...}``.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from dra_driver.cdi.roots import DriverRoots, Root
from dra_driver.cdi.spec import DeviceNode
from dra_driver.errors import HardwareError
from dra_driver.hardware.model import Gpu
from dra_driver.hardware.rooted import resolve_inside

CONTROL_NODES = ("nvidia-modeset", "nvidia-uvm", "nvidia-uvm-tools", "nvidiactl")
# CUDA cannot start without these. They appear some time after boot; a container that starts earlier would never work.
REQUIRED_NODES = ("nvidia-uvm", "nvidiactl")
SIMULATED_TABLE = ".simulated-devices.json"

_PERMISSIONS = "rwm"
_WORLD_MODE = 0o666
_OTHERS_READ_WRITE = 0o006


@dataclass(frozen=True, slots=True)
class FoundNode:
    """A device node, and the group a process must be in to open it (None when everybody may)."""

    node: DeviceNode
    group: int | None = None


def control_nodes(roots: DriverRoots) -> tuple[FoundNode, ...]:
    """Nodes that every GPU container gets. Raises :class:`HardwareError`, retryable, when a required one is missing."""
    dev = roots.dev()
    nodes = {name: _find(dev, name) for name in CONTROL_NODES}
    missing = [f"/dev/{name}" for name in REQUIRED_NODES if nodes[name] is None]
    if missing:
        raise HardwareError(
            f"{' and '.join(missing)} not found under {dev.host} (seen here as {dev.visible})",
            hint="the driver is not fully loaded yet; 'nvidia-modprobe -u -c 0' makes the nodes",
        )
    return tuple(node for node in nodes.values() if node is not None)


def gpu_nodes(roots: DriverRoots, gpu: Gpu) -> tuple[FoundNode, ...]:
    """``/dev/nvidia<minor>``, then the GPU's DRM nodes where it has some. Raises :class:`HardwareError`, retryable."""
    dev = roots.dev()
    name = f"nvidia{gpu.minor}"
    node = _find(dev, name)
    if node is None:
        raise HardwareError(
            f"/dev/{name} of GPU {gpu.uuid} not found under {dev.host} (seen here as {dev.visible})",
            hint=f"'nvidia-modprobe -c {gpu.minor}' makes the node",
        )
    drm = (_find(dev, f"dri/{entry}") for entry in _drm_entries(roots.sysfs, gpu.pci_bus_id))
    return (node, *(entry for entry in drm if entry is not None))


def _drm_entries(sysfs: Path, pci_bus_id: str) -> list[str]:
    """``card1``, ``renderD128``: the DRM minors of a PCI function; none on a node without nvidia-drm."""
    try:
        names = os.listdir(resolve_inside(sysfs, f"/bus/pci/devices/{pci_bus_id}/drm"))
    except OSError:
        return []
    return sorted(name for name in names if name.startswith(("card", "renderD")))


def _find(dev: Root, name: str) -> FoundNode | None:
    inner = f"/dev/{name}"
    path = dev.visible_path(inner)
    try:
        found = os.stat(dev.real_path(inner))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise HardwareError(f"cannot look at {path}: {error.strerror or error}") from error
    host_path = dev.host_path(inner)
    if not stat.S_ISCHR(found.st_mode):
        major, minor = _simulated_number(dev, name)
        # With type and number given a runtime does not look at the host's node, which is no device here.
        return FoundNode(DeviceNode(inner, host_path, "c", major, minor, _WORLD_MODE, _PERMISSIONS))
    mode = stat.S_IMODE(found.st_mode)
    node = DeviceNode(
        path=inner,
        host_path="" if host_path == inner else host_path,
        major=os.major(found.st_rdev),
        minor=os.minor(found.st_rdev),
        file_mode=mode,
        permissions=_PERMISSIONS,
    )
    needs_group = found.st_gid != 0 and mode & _OTHERS_READ_WRITE != _OTHERS_READ_WRITE
    return FoundNode(node, found.st_gid if needs_group else None)


def _simulated_number(dev: Root, name: str) -> tuple[int, int]:
    table = dev.visible_path(f"/dev/{SIMULATED_TABLE}")
    try:
        major, minor = json.loads(dev.real_path(f"/dev/{SIMULATED_TABLE}").read_bytes())[name]
        return int(major), int(minor)
    except FileNotFoundError:
        raise HardwareError(
            f"{dev.visible_path(f'/dev/{name}')} is not a character device",
            hint=f"remove it and run nvidia-modprobe; a simulated root lists its devices in {table}",
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise HardwareError(f"no device number for {name} in {table}: {error!r}") from error
