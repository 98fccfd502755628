"""What fences the fractions of a device on its node, and how much of its memory is nobody's to have. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from api.claim_config import SharingStrategy
from api.fractions import SharingBackend
from dra_driver.devices.policy import DevicePolicy
from dra_driver.hardware.model import Gpu, Machine

_BY_MPS = (SharingBackend.MPS_NAMESPACE, SharingBackend.MPS)
_VOLTA = 7  # compute capability, major


@dataclass(frozen=True, slots=True)
class Fencing:
    """``reserve``: bytes that the driver and an MPS server have for themselves; None where nobody has measured it."""

    backend: SharingBackend = SharingBackend.NONE
    reserve: int | None = None


def fencing_of(device: str, gpu: Gpu, machine: Machine, policy: DevicePolicy, *, mig: bool = False) -> Fencing:
    """Of ``device`` on ``gpu``, by its published name; ``mig``: whether it is a MIG device."""
    reserve = next((each.bytes for each in gpu.reserves if each.device == device), None)
    return Fencing(fences_of(machine.fences, gpu, policy, mig=mig)[0], reserve)


def fences_of(
    found: Collection[SharingBackend], gpu: Gpu, policy: DevicePolicy, *, mig: bool = False
) -> tuple[SharingBackend, ...]:
    """What each share of a device gets of what its node has, the strongest first; NONE where there is nothing.

    The driver limits no more than memory, so MPS is beside it for compute. It takes no MIG device, nor does protocol 3
    of MPS (NVIDIA, nvmlDeviceSetMemoryLimits_v1; "Per-GPU Compute and Memory Limits with MPS"). MPS may be switched
    off, and limits its clients since Volta only (NVIDIA's MPS documentation, "Volta MPS").
    """
    limits = int(gpu.cuda_compute_capability.partition(".")[0]) >= _VOLTA
    may_mps = limits and SharingStrategy.MPS in policy.sharing_by
    memory = [each for each in (SharingBackend.CGROUP,) if each in found and not mig]
    by_mps = [each for each in _BY_MPS if each in found and may_mps and not (mig and each is _BY_MPS[0])]
    return (*memory, *by_mps[:1]) or (SharingBackend.NONE,)
