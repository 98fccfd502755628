"""The device nodes that give a container its MIG device: ``/dev/nvidia-caps/nvidia-cap<minor>``, two for each.

The kernel module says which: /proc/driver/nvidia/capabilities has an ``access`` file for each GPU instance and each
compute instance with the minor of its node, and /proc/devices has their major (NVIDIA MIG User Guide, "Device Nodes and
Capabilities"). A CDI entry with type, major and minor needs no node on the host, and none is there until somebody makes
it (nvidia-modprobe -f).
"""

from __future__ import annotations

import re
from pathlib import Path

from dra_driver.cdi.spec import DeviceNode
from dra_driver.errors import HardwareError

_DRIVER = "nvidia-caps"
_MAJOR = re.compile(rf"^\s*([0-9]+) {_DRIVER}$", re.MULTILINE | re.ASCII)
_MINOR = re.compile(r"^DeviceFileMinor: ([0-9]+)$", re.MULTILINE | re.ASCII)
_MODE = re.compile(r"^DeviceFileMode: ([0-9]+)$", re.MULTILINE | re.ASCII)
_PERMISSIONS = "rwm"
_HINT = "the NVIDIA kernel module shows it as soon as the instance exists; is the host's /proc mounted into the plugin?"


class MigCapabilityNodes:
    """Reads ``proc``, the host's /proc as this process sees it, each time it is asked."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc

    def nodes(self, gpu_minor: int, gpu_instance_id: int, compute_instance_id: int) -> tuple[DeviceNode, ...]:
        """The nodes of the GPU instance and of the compute instance. Raises :class:`HardwareError`, retryable."""
        major = self._major()
        instance = self._proc / f"driver/nvidia/capabilities/gpu{gpu_minor}/mig/gi{gpu_instance_id}"
        return _node(major, instance / "access"), _node(major, instance / f"ci{compute_instance_id}/access")

    def _major(self) -> int:
        path = self._proc / "devices"
        found = _MAJOR.search(_read(path))
        if found is None:
            raise HardwareError(f"{path} has no {_DRIVER}", hint="the NVIDIA kernel module is not loaded, or too old")
        return int(found[1])


def _node(major: int, access: Path) -> DeviceNode:
    text = _read(access)
    minor, mode = _MINOR.search(text), _MODE.search(text)
    if minor is None or mode is None:
        raise HardwareError(f"{access} says neither minor nor mode of a device node: {text!r}")
    path = f"/dev/{_DRIVER}/nvidia-cap{minor[1]}"
    return DeviceNode(path, "", "c", major, int(minor[1]), int(mode[1]), _PERMISSIONS)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise HardwareError(f"cannot read {path}: {error.strerror or error}", hint=_HINT) from error
