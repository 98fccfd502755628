"""GPU instances that no claim made and that are in the way of one, and whether they may be removed.

Shared by the kinds that need room on a GPU with MIG: whole GPUs and MIG devices.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from dra_driver.devices.policy import GpuMigPolicy
from dra_driver.hardware.model import GpuInstance
from dra_driver.hardware.nvml import PlacementOccupied
from kubelet_plugin.hardware.mig import MigHardware, describe, destroy

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InTheWay:
    """A ``prepare.kind.Removal``."""

    gpu_uuid: str
    instance: GpuInstance

    def does(self) -> str:
        return f"destroy what no claim has made on GPU {self.gpu_uuid}: {describe(self.instance)}"


def removable(
    device_name: str, gpu_uuid: str, strangers: Iterable[GpuInstance], policy: GpuMigPolicy
) -> tuple[InTheWay, ...]:
    """What has to be removed for the device. Raises PlacementOccupied where the administrator does not allow it."""
    found = tuple(strangers)
    if found and not policy.adopt_foreign:
        raise PlacementOccupied(
            f"device {device_name} of GPU {gpu_uuid} is taken by what no claim has made: "
            f"{'; '.join(map(describe, found))}",
            hint="it was made by hand or by another tool: remove it with nvidia-smi mig -dci and -dgi, "
            "or allow the driver to with adoptForeign in its MIG policy",
        )
    return tuple(InTheWay(gpu_uuid, instance) for instance in found)


def remove(hardware: MigHardware, stranger: InTheWay) -> None:
    """Raises InstanceInUse when a process uses it."""
    logger.warning("adopting: %s", stranger.does())
    destroy(hardware, stranger.gpu_uuid, stranger.instance)
