"""What a container sees of GPUs when it looks itself: its /dev and its environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from e2e.kit.kubectl import Kubectl

_LINE = "---"
_LOOK = f"ls /dev; ls /dev/nvidia-caps 2>/dev/null; echo {_LINE}; env"
_GPU = re.compile(r"nvidia(\d+)")
_CAPABILITY = re.compile(r"nvidia-cap(\d+)")


@dataclass(frozen=True, slots=True)
class View:
    """Names below /dev and /dev/nvidia-caps, and environment variables."""

    devices: frozenset[str]
    environment: Mapping[str, str]

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
    devices, _, environment = output.partition(f"{_LINE}\n")
    pairs = (line.partition("=") for line in environment.splitlines() if "=" in line)
    return View(frozenset(devices.split()), {name: value for name, _, value in pairs})
