"""Which GPU is offered as what: the one rule for everybody who has to know. Pure.

``allocatable`` makes devices by it, the controller says by it which GPU is not offered and why, and the kubelet plugin
tells by it the health of exactly the GPUs that are offered as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from api.mig_policy import MigMode
from dra_driver.devices.naming import gpu_name
from dra_driver.devices.policy import MigPolicy, toggles_without_reset
from dra_driver.hardware.model import Gpu, Machine


class OfferedAs(Enum):
    NOTHING = auto()  # MIG mode is on, so that CUDA cannot use the whole, and MIG devices are not to be offered
    WHOLE = auto()
    EXISTING = auto()  # the MIG devices that exist, if there are any
    PLACEMENTS = auto()  # every placement of every profile; claims have the MIG devices made
    WHOLE_AND_PLACEMENTS = auto()

    @property
    def includes_whole(self) -> bool:
        return self in (OfferedAs.WHOLE, OfferedAs.WHOLE_AND_PLACEMENTS)


def offered_as(gpu: Gpu, mode: MigMode) -> OfferedAs:
    """What ``gpu`` is offered as under ``mode``.

    Where MIG mode changes at once, dynamic does not depend on whether it is on. On Ampere it stays until a reset, so a
    dynamic GPU that has it on is not offered as a whole, and one that has it off only as a whole.
    """
    if gpu.mig is None:
        return OfferedAs.WHOLE
    if mode is MigMode.DYNAMIC and gpu.mig.profiles:
        if toggles_without_reset(gpu):
            return OfferedAs.WHOLE_AND_PLACEMENTS
        return OfferedAs.PLACEMENTS if gpu.mig.enabled else OfferedAs.WHOLE
    if not gpu.mig.enabled:
        return OfferedAs.WHOLE
    return OfferedAs.EXISTING if mode is MigMode.STATIC else OfferedAs.NOTHING


def whole_gpus(machine: Machine, policy: MigPolicy, node: str) -> Mapping[str, str]:
    """The GPUs that node ``node`` offers as a whole: UUIDs by device name."""
    return {
        gpu_name(gpu.minor): gpu.uuid
        for gpu in machine.gpus
        if offered_as(gpu, policy.for_gpu(node, gpu).mode).includes_whole
    }
