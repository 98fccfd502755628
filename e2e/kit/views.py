"""What a container sees of GPUs when it looks itself: its /dev, its environment, what is mounted in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from e2e.kit.kubectl import Kubectl

_LINE = "---"
_LOOK = f"ls /dev; ls /dev/nvidia-caps 2>/dev/null; echo {_LINE}; env; echo {_LINE}; cat /proc/self/mountinfo"
_GPU = re.compile(r"nvidia(\d+)")
_CAPABILITY = re.compile(r"nvidia-cap(\d+)")


@dataclass(frozen=True, slots=True)
class Mount:
    """``root``: which part of the file system it is, by its path there."""

    root: str
    options: frozenset[str]
    kind: str


@dataclass(frozen=True, slots=True)
class View:
    """Names below /dev and /dev/nvidia-caps, environment variables, and what is mounted by mount point."""

    devices: frozenset[str]
    environment: Mapping[str, str]
    mounts: Mapping[str, Mount] = field(default_factory=dict)

    @property
    def gpus(self) -> set[int]:
        """Minors of the GPUs that have a device node."""
        return {int(found[1]) for name in self.devices if (found := _GPU.fullmatch(name))}

    @property
    def capabilities(self) -> set[int]:
        """Minors of the nodes that open MIG devices: two for each, of its GPU instance and of its compute instance."""
        return {int(found[1]) for name in self.devices if (found := _CAPABILITY.fullmatch(name))}

    @property
    def visible_devices(self) -> str | None:
        return self.environment.get("NVIDIA_VISIBLE_DEVICES")


def look(kubectl: Kubectl, namespace: str, pod: str, container: str) -> View:
    """Raises KubectlError."""
    return parse(kubectl.execute(namespace, pod, container, ["sh", "-c", _LOOK]))


def parse(output: str) -> View:
    devices, environment, mounts = (*output.split(f"{_LINE}\n"), "")[:3]
    pairs = (line.partition("=") for line in environment.splitlines() if "=" in line)
    return View(frozenset(devices.split()), {name: value for name, _, value in pairs}, _mounts(mounts))


def _mounts(mountinfo: str) -> dict[str, Mount]:
    """Of one that is mounted over another the last counts (proc_pid_mountinfo(5))."""
    found = {}
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        _, _, _, root, place, options, *_ = fields.split()
        found[place] = Mount(root, frozenset(options.split(",")), rest.split()[0])
    return found
