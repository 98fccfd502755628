"""What an administrator decides about devices, as the pure functions of this package see it.

A value, made from DriverConfiguration (``devices.configured``) by the controller, which publishes by it, and by the
kubelet plugin, which prepares by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from api.claim_config import SharingStrategy
from api.mig_policy import MigMode, MigPacking
from dra_driver.devices.selector import GpuSelector
from dra_driver.devices.sharing import SharingPolicy, SharingRule
from dra_driver.hardware.model import Gpu

_TOGGLES_WITHOUT_RESET = 9  # compute capability, major: Hopper and newer (NVIDIA MIG User Guide, "Enable MIG Mode")


@dataclass(frozen=True, slots=True)
class GpuMigPolicy:
    """The policy of one GPU. ``layout`` names a layout to bring about, for static GPUs; empty for none.

    ``adopt_foreign``: instances that nobody's claim made may be removed where a claim needs their place.
    ``keep_mode``: MIG mode stays on after the last instance is gone.
    """

    mode: MigMode
    partial_compute_instances: bool = False
    adopt_foreign: bool = False
    keep_mode: bool = False
    layout: str = ""


@dataclass(frozen=True, slots=True)
class MigRule:
    """``mode`` None is the default of the GPU; see :meth:`MigPolicy.for_gpu`."""

    selector: GpuSelector = field(default_factory=GpuSelector)
    mode: MigMode | None = None
    partial_compute_instances: bool = False
    adopt_foreign: bool = False
    keep_mode: bool = False
    layout: str = ""


@dataclass(frozen=True, slots=True)
class MigPolicy:
    """``rules`` in their order: the first that selects a GPU decides about it.

    ``dynamic_by_default``: GPUs that no rule gives a mode may be dynamic (feature gate DynamicMIG).
    """

    rules: tuple[MigRule, ...] = ()
    dynamic_by_default: bool = True
    packing: MigPacking = MigPacking.PER_GPU

    def for_gpu(self, node: str, gpu: Gpu) -> GpuMigPolicy:
        """Without a mode: dynamic where MIG mode changes without a reset, static where it is on already, else off."""
        rule = next((rule for rule in self.rules if rule.selector.matches(node, gpu)), MigRule())
        mode = MigMode.OFF if gpu.mig is None else rule.mode or self._default_mode(gpu)
        return GpuMigPolicy(mode, rule.partial_compute_instances, rule.adopt_foreign, rule.keep_mode, rule.layout)

    def _default_mode(self, gpu: Gpu) -> MigMode:
        if self.dynamic_by_default and toggles_without_reset(gpu):
            return MigMode.DYNAMIC
        return MigMode.STATIC if gpu.mig is not None and gpu.mig.enabled else MigMode.OFF


@dataclass(frozen=True, slots=True)
class DevicePolicy:
    """``additional_attributes`` adds what NVIDIA's driver does not publish: ``minor`` and ``migCapable``.

    They are off by default because a manifest that selects by them runs with this driver only. ``driver`` is the
    driver's name, in whose domain its taints are. ``sharing_by``: the strategies whose feature gates are on.
    """

    additional_attributes: bool = False
    mig: MigPolicy = field(default_factory=MigPolicy)
    sharing: SharingPolicy = field(default_factory=SharingPolicy)
    sharing_by: frozenset[SharingStrategy] = frozenset(SharingStrategy)
    driver: str = "gpu.nvidia.com"

    def sharing_also(self, rules: Sequence[SharingRule]) -> Self:
        """With ``rules`` of one node after those that are there."""
        return replace(self, sharing=replace(self.sharing, rules=(*self.sharing.rules, *rules)))

    def taint_key(self, name: str) -> str:
        return taint_key(self.driver, name)


def taint_key(driver: str, name: str) -> str:
    """The key of a taint of ours: in the driver's domain."""
    return f"{driver}/{name}"


def toggles_without_reset(gpu: Gpu) -> bool:
    """Whether MIG mode of this GPU changes at once; on Ampere it waits for a reset of the GPU."""
    return int(gpu.cuda_compute_capability.partition(".")[0]) >= _TOGGLES_WITHOUT_RESET
