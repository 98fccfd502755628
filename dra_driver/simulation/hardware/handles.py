"""Opaque handles of the simulated library: numbers that stand for a GPU, a MIG device, an instance, an event set.

Handles are this process's own, as with the real library. A number that was never given out, or that stands for another
kind of thing, is refused.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware.arguments import Refused
from dra_driver.simulation.hardware.state import ComputeInstanceState, GpuInstanceState

_FIRST = 0x6E760000  # any number that is not near zero
_STEP = 0x100


class Kind(Enum):
    GPU = "gpu"
    MIG_DEVICE = "mig device"
    GPU_INSTANCE = "gpu instance"
    COMPUTE_INSTANCE = "compute instance"
    EVENT_SET = "event set"


@dataclass(frozen=True, slots=True)
class Target:
    """What a handle stands for. Numbers are -1 where they do not apply.

    ``created`` is the creation that made the instance or event set: a handle of a destroyed instance does not stand for
    the next one with the same ids.
    """

    kind: Kind
    gpu: int
    gpu_instance: int = -1
    compute_instance: int = -1
    created: int = -1

    @classmethod
    def of_gpu_instance(cls, gpu: int, instance: GpuInstanceState) -> Target:
        return cls(Kind.GPU_INSTANCE, gpu, instance.id, created=instance.created)

    @classmethod
    def of_compute_instance(cls, gpu: int, instance: GpuInstanceState, compute: ComputeInstanceState) -> Target:
        return cls(Kind.COMPUTE_INSTANCE, gpu, instance.id, compute.id, compute.created)

    @classmethod
    def of_mig_device(cls, gpu: int, instance: GpuInstanceState, compute: ComputeInstanceState) -> Target:
        return cls(Kind.MIG_DEVICE, gpu, instance.id, compute.id, compute.created)


class Handles:
    """Gives out handles, the same one for the same target, and finds targets again. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._targets: dict[int, Target] = {}
        self._addresses: dict[Target, int] = {}

    def address(self, target: Target) -> int:
        with self._lock:
            known = self._addresses.get(target)
            if known is None:
                known = _FIRST + _STEP * len(self._addresses)
                self._addresses[target] = known
                self._targets[known] = target
            return known

    def find(self, address: int, *kinds: Kind) -> Target:
        with self._lock:
            target = self._targets.get(address)
        if target is None or target.kind not in kinds:
            raise Refused(Return.INVALID_ARGUMENT)
        return target
