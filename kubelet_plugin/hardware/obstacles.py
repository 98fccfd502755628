"""What keeps containers from getting GPUs that NVML shows: missing driver files, a hook that cannot be run, no node.

A node offers only what it can prepare. Otherwise the scheduler goes on sending pods to a node where each of them fails,
though another node has room. So after every reading the edits that a prepare would need are asked for; what cannot be
had is told, and offered again by the first reading after it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dra_driver.cdi.spec import ContainerEdits
from dra_driver.errors import HardwareError
from dra_driver.hardware.model import Gpu, Machine


@dataclass(frozen=True, slots=True)
class Obstacle:
    """``message`` says what is wrong and what to do. ``uuid``: the GPU that it concerns; None: all of the node."""

    message: str
    uuid: str | None = None


LookForObstacles = Callable[[Machine], tuple[Obstacle, ...]]


class Edits(Protocol):
    """The edits of every prepare (``dra_driver.cdi.edits.DriverEdits``). Both raise ``HardwareError``."""

    def common(self, driver_version: str) -> ContainerEdits: ...

    def gpu(self, gpu: Gpu) -> ContainerEdits: ...


def obstacles_of(edits: Edits, mig_nodes: Callable[[], object]) -> LookForObstacles:
    """Looks for what keeps ``edits`` from being made. ``mig_nodes``: what GPUs in MIG mode need besides; raises too."""

    def look_at(gpu: Gpu) -> None:
        edits.gpu(gpu)
        if gpu.mig is not None and gpu.mig.enabled:
            mig_nodes()

    def look(machine: Machine) -> tuple[Obstacle, ...]:
        if not machine.gpus:
            return ()  # a node whose GPUs are gone has nothing to prepare
        try:
            edits.common(machine.driver_version)
        except HardwareError as error:
            return (Obstacle(str(error)),)
        found = []
        for gpu in machine.gpus:
            try:
                look_at(gpu)
            except HardwareError as error:
                found.append(Obstacle(str(error), gpu.uuid))
        return tuple(found)

    return look


def without_obstacles(machine: Machine) -> tuple[Obstacle, ...]:
    """For hardware that no container is to be given."""
    return ()
