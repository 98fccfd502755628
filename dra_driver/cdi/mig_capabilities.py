"""The device nodes that open a MIG device: ``/dev/nvidia-caps/nvidia-cap<minor>`` of its GPU and compute instance.

The kernel module says which minors they are, below ``/proc`` as the host has it: an ``access`` file per instance that
exists, and one table of all that could ever exist. The nodes themselves need not be there: with type and numbers given
a runtime makes them in the container.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dra_driver.cdi.spec import DeviceNode
from dra_driver.errors import HardwareError
from dra_driver.hardware.rooted import resolve_inside

_CAPABILITIES = "proc/driver/nvidia/capabilities"
_TABLE = "proc/driver/nvidia-caps/mig-minors"
_DEVICES = "proc/devices"
_DRIVER = "nvidia-caps"  # its name in /proc/devices

_MINOR = re.compile(r"^DeviceFileMinor:\s*(\d+)\s*$", re.MULTILINE)
_WORLD_READABLE = 0o444


@dataclass(frozen=True, slots=True)
class MigCapabilities:
    """Numbers of the two nodes of one MIG device. A process needs both."""

    major: int
    gpu_instance_minor: int
    compute_instance_minor: int

    def device_nodes(self) -> tuple[DeviceNode, DeviceNode]:
        """For the container edits of a MIG device, next to its parent's node."""
        return self._node(self.gpu_instance_minor), self._node(self.compute_instance_minor)

    def _node(self, minor: int) -> DeviceNode:
        return DeviceNode(
            path=f"/dev/nvidia-caps/nvidia-cap{minor}",
            type="c",
            major=self.major,
            minor=minor,
            file_mode=_WORLD_READABLE,
            permissions="rwm",
        )


def read_mig_capabilities(host_root: Path, gpu_minor: int, gpu_instance: int, compute_instance: int) -> MigCapabilities:
    """The numbers for one MIG device, by its GPU's minor and its instances' ids.

    ``host_root`` is the host's ``/`` as this process sees it. The ``access`` files are read first, then the table,
    which a container's /proc may have where it masks the former. Raises HardwareError, retryable, that names the file.
    """
    parent = f"gpu{gpu_minor}/mig/gi{gpu_instance}"
    return MigCapabilities(
        capability_major(host_root),
        _minor(host_root, f"{parent}/access"),
        _minor(host_root, f"{parent}/ci{compute_instance}/access"),
    )


def capability_major(host_root: Path) -> int:
    """The number that the kernel has given to capability nodes. Raises HardwareError when it has given none."""
    for line in (_read(host_root, _DEVICES) or "").splitlines():
        number, _, name = line.strip().partition(" ")
        if name == _DRIVER and number.isdecimal():
            return int(number)
    raise HardwareError(
        f"{host_root / _DEVICES} names no character device {_DRIVER}",
        hint="the NVIDIA driver is not loaded, or has no MIG support",
    )


def _minor(host_root: Path, capability: str) -> int:
    inner = f"{_CAPABILITIES}/{capability}"
    path = host_root / inner
    text = _read(host_root, inner)
    if text is None:
        return _minor_of_table(host_root, capability.replace("/mig/", "/"), path)
    found = _MINOR.search(text)
    if found is None:
        raise HardwareError(f"{path} has no DeviceFileMinor", hint="the NVIDIA driver writes it; is this its file?")
    return int(found[1])


def _minor_of_table(host_root: Path, name: str, wanted: Path) -> int:
    for line in (_read(host_root, _TABLE) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdecimal():
            return int(value)
    raise HardwareError(
        f"no device number for MIG capability {name}: {wanted} is not there, and {host_root / _TABLE} does not list it",
        hint="the instance may be gone already; else mount the host's /proc, or load the driver's nvidia-caps",
    )


def _read(host_root: Path, inner: str) -> str | None:
    """None when the file is not there."""
    path = host_root / inner
    try:
        return resolve_inside(host_root, inner).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise HardwareError(f"cannot read {path}: {error}") from error
