"""One GPU that has MIG, together with everything that decides what is offered of it."""

from __future__ import annotations

from dataclasses import dataclass

from dra_driver.devices.policy import DevicePolicy, GpuMigPolicy
from dra_driver.hardware.model import Gpu, Machine, MigState


@dataclass(frozen=True, slots=True)
class MigGpu:
    """``state`` is that of ``gpu``; ``mig`` is what ``policy`` says of it on node ``node``."""

    gpu: Gpu
    state: MigState
    mig: GpuMigPolicy
    policy: DevicePolicy
    machine: Machine
    node: str = ""
