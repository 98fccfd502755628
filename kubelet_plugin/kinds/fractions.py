"""What several wrappers ask about fractions: what was counted for a share, and what fences it on this node. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from api.fractions import SharingBackend
from dra_driver.devices.fences import fences_of
from dra_driver.devices.naming import MigName, read_name
from dra_driver.devices.shares import COMPUTE, MEMORY, usable_memory
from dra_driver.devices.sharing import Fractions
from dra_driver.hardware.model import Gpu
from kubelet_plugin.claims.allocated import AllocatedDevice
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.kinds.gpus import gpu_behind, memory_of, place_word
from kubelet_plugin.kinds.sharing import SharingInForce, sharing_of_name
from kubelet_plugin.prepare.kind import ClaimDevice

PIPE_IN_CONTAINER: Final = "/tmp/nvidia-mps"  # noqa: S108
"""Of MPS, and the variable that says so: the contract of NVIDIA's driver (cmd/gpu-kubelet-plugin/sharing.go)."""
PIPE_ENV: Final = f"CUDA_MPS_PIPE_DIRECTORY={PIPE_IN_CONTAINER}"


@dataclass(frozen=True, slots=True)
class Fraction:
    """What the scheduler has counted for a share: ``memory`` in bytes, ``compute`` in percent, 0 for no ceiling."""

    memory: int
    compute: int

    @property
    def has_ceiling(self) -> bool:
        return 0 < self.compute < 100


class NodeFences(Protocol):
    """What was found on the node. Thread-safe; asked while claims are prepared, so it never waits."""

    def backends(self) -> tuple[SharingBackend, ...]: ...

    def reserve(self, device: str) -> int | None:
        """Bytes that no share of it can have, by its published name; None where it was not measured."""
        ...


class NothingFenced:
    """A ``NodeFences`` of a node that has none."""

    def backends(self) -> tuple[SharingBackend, ...]:
        return ()

    def reserve(self, device: str) -> int | None:
        return None


def fraction_of(device: AllocatedDevice) -> Fraction | None:
    """None for what is no share, or one of which not both were counted: replicas, and NVIDIA's ConsumableShares."""
    memory, compute = device.consumed.get(MEMORY), device.consumed.get(COMPUTE)
    if device.share_id is None or device.admin_access or memory is None or compute is None:
        return None
    return Fraction(memory.value(), compute.value())


def fractions_group(gpu_uuid: str, device: str) -> str:
    """The MPS group of all fractions of a device."""
    return f"fractions-{place_word(gpu_uuid, device)}"


class FractionFences:
    """Which fence each share gets."""

    def __init__(self, sharing: SharingInForce, fences: NodeFences, policy: NodePolicy) -> None:
        self._sharing = sharing
        self._fences = fences
        self._policy = policy

    def fences(self, device: ClaimDevice) -> tuple[SharingBackend, ...]:
        """The strongest first. None at all for a device that needs none: it is no fraction, or all of the device, which
        nobody else can have, and without a ceiling."""
        fraction = fraction_of(device.allocated)
        gpu = None if fraction is None else gpu_behind(device.place)
        if fraction is None or gpu is None or self._is_all(fraction, device):
            return ()
        mig = isinstance(read_name(device.allocated.device), MigName)
        return fences_of(self._fences.backends(), gpu, self._policy.devices, mig=mig)

    def _is_all(self, fraction: Fraction, device: ClaimDevice) -> bool:
        gpu, name = gpu_behind(device.place), device.allocated.device
        sharing = None if gpu is None else self._offered(name, gpu)
        memory = None if gpu is None else memory_of(name, gpu)
        if memory is None or not isinstance(sharing, Fractions):
            return False
        usable = usable_memory(memory, sharing.memory_step, self._fences.reserve(name) or 0)
        return fraction.memory >= usable and not fraction.has_ceiling

    def _offered(self, name: str, gpu: Gpu) -> object:
        return sharing_of_name(read_name(name), gpu, self._sharing.current(), self._policy.node)
