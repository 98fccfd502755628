"""What fences the fractions of a device on its node, and how much of its memory is nobody's to have. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from api.claim_config import SharingStrategy
from api.fractions import SharingBackend
from dra_driver.devices.policy import DevicePolicy
from dra_driver.hardware.model import Gpu, Machine

_BY_MPS = (SharingBackend.MPS_NAMESPACE, SharingBackend.MPS)


@dataclass(frozen=True, slots=True)
class Fencing:
    """``reserve``: bytes that the driver and an MPS server have for themselves; None where nobody has measured it."""

    backend: SharingBackend = SharingBackend.NONE
    reserve: int | None = None


def fencing_of(device: str, gpu: Gpu, machine: Machine, policy: DevicePolicy, *, mig: bool = False) -> Fencing:
    """Of ``device`` on ``gpu``, by its published name; ``mig``: whether it is a MIG device."""
    reserve = next((each.bytes for each in gpu.reserves if each.device == device), None)
    return Fencing(strongest(machine.fences, policy, mig=mig), reserve)


def strongest(fences: Collection[SharingBackend], policy: DevicePolicy, *, mig: bool = False) -> SharingBackend:
    """What fences best of what a node has. NVML takes no MIG device for its memory limits
    (nvmlDeviceSetMemoryLimits_v1), and MPS may be switched off."""
    may_mps = SharingStrategy.MPS in policy.sharing_by
    usable = (
        backend
        for backend in SharingBackend
        if backend in fences and (may_mps or backend not in _BY_MPS) and not (mig and backend is SharingBackend.CGROUP)
    )
    return next(usable, SharingBackend.NONE)
