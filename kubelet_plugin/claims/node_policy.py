"""What holds on this node: its name, its boot, and what the administrator decided about its devices."""

from __future__ import annotations

from dataclasses import dataclass

from dra_driver.devices.policy import DevicePolicy, GpuMigPolicy
from dra_driver.hardware.model import Gpu


@dataclass(frozen=True, slots=True)
class NodePolicy:
    """``node`` is also the name of the node's pool. ``gates``: the feature gates that are on."""

    node: str
    boot_id: str
    devices: DevicePolicy
    gates: frozenset[str] = frozenset()

    def mig(self, gpu: Gpu) -> GpuMigPolicy:
        return self.devices.mig.for_gpu(self.node, gpu)
