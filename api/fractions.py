"""Fractions of a device: how strongly one is fenced, in the words that attributes, claims and configuration share."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import AfterValidator, Field, StrictInt
from pydantic_core import PydanticCustomError

from api.base import ApiModel
from api.memory import MIB, MemoryLimit, in_bytes
from api.strict import show


class SharingBackend(StrEnum):
    """What fences the shares of a device; attribute ``sharingBackend``. Strongest first."""

    CGROUP = "Cgroup"  # NVML's memory limit on each container's cgroup
    MPS_NAMESPACE = "MpsNamespace"  # limits of an MPS namespace of the share's own (MPS protocol 3)
    MPS = "Mps"  # limits in the variables of MPS clients
    NONE = "None"


class Enforcement(StrEnum):
    """What a container can do about its limit of memory; attribute ``sharingEnforcement``."""

    ENFORCED = "Enforced"  # nothing: the driver holds it
    COOPERATIVE = "Cooperative"  # it holds each process that leaves its variables alone
    NONE = "None"  # nobody holds anybody to what was counted


ENFORCEMENT: Final = MappingProxyType(
    {
        SharingBackend.CGROUP: Enforcement.ENFORCED,
        # A process that names a GPU which it does not see in CUDA_MPS_PINNED_DEVICE_MEM_LIMIT has no limit of memory
        # any more (NVIDIA Dynamo, "Per-GPU Compute and Memory Limits with MPS"); the percentage holds.
        SharingBackend.MPS_NAMESPACE: Enforcement.COOPERATIVE,
        SharingBackend.MPS: Enforcement.COOPERATIVE,
        SharingBackend.NONE: Enforcement.NONE,
    }
)

API_VERSION: Final = "gpu-dra.dev/v1alpha1"
"""Of our own kind of claim configuration, beside NVIDIA's."""

_ORDER: Final = (Enforcement.NONE, Enforcement.COOPERATIVE, Enforcement.ENFORCED)


def suffices(backend: SharingBackend, minimum: Enforcement) -> bool:
    """Whether ``backend`` is as strong as ``minimum``."""
    return _ORDER.index(ENFORCEMENT[backend]) >= _ORDER.index(minimum)


def _whole_mib(text: str) -> str:
    if in_bytes(text) % MIB:
        hint = 'such as "256Mi" or "1Gi"'
        raise PydanticCustomError("problem", "must be whole Mi, not {given}", {"given": show(text), "hint": hint})
    return text


class FractionSettings(ApiModel):
    """How finely a device is offered in fractions."""

    memory_step: Annotated[MemoryLimit, AfterValidator(_whole_mib)] = Field(
        default="256Mi", description="Memory of a fraction is whole steps, and at least one."
    )
    compute_step: Annotated[StrictInt, Field(ge=1, le=100)] = Field(
        default=1,
        description="Compute of a fraction, in percent of the multiprocessors, is whole steps; none is no ceiling.",
    )
