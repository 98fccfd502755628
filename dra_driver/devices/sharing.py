"""Which devices are offered as several shares, and how their holders share them. Values and pure functions.

The controller publishes by it and the kubelet plugin prepares by it. Its rules come from DriverConfiguration
(``spec.sharing.rules``) and, after those, from the device plugin's configuration that is in force on the node.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from api.claim_config import SharingStrategy
from dra_driver.devices.selector import GpuSelector
from dra_driver.hardware.model import Gpu


@dataclass(frozen=True, slots=True)
class Replicas:
    """``count`` shares of each device. ``renamed``: offered as ``<resource>.shared``.

    ``one_per_request``: a claim for more than one share is refused (failRequestsGreaterThanOne of the device plugin).
    """

    strategy: SharingStrategy
    count: int
    renamed: bool = False
    one_per_request: bool = False


@dataclass(frozen=True, slots=True)
class Fractions:
    """Shares as large as claims ask for: ``memory`` in steps of ``memory_step`` bytes and ``compute`` in steps of
    ``compute_step`` percent; each is fenced."""

    memory_step: int
    compute_step: int


@dataclass(frozen=True, slots=True)
class Counted:
    """Shares without a fence, as NVIDIA's driver has them with ConsumableShares. ``memory``: it is counted (option
    ``memory``); else a share takes as much as it asks for, and nothing unasked (option ``unlimited``)."""

    memory: bool


Sharing = Replicas | Fractions | Counted


@dataclass(frozen=True, slots=True)
class SharingRule:
    """``mig_profile``: which MIG devices of the selected GPUs, as in ``1g.10gb``; None for the GPUs as a whole."""

    sharing: Sharing
    selector: GpuSelector = field(default_factory=GpuSelector)
    mig_profile: str | None = None


@dataclass(frozen=True, slots=True)
class SharingPolicy:
    """``rules`` in their order: the first that fits a device decides about it; ``otherwise`` where none does."""

    rules: tuple[SharingRule, ...] = ()
    otherwise: Sharing | None = None

    @property
    def has_fractions(self) -> bool:
        return any(isinstance(rule.sharing, Fractions) for rule in self.rules)

    def for_gpu(self, node: str, gpu: Gpu) -> Sharing | None:
        return self._first(node, gpu, None)

    def for_mig(self, node: str, gpu: Gpu, profile: str) -> Sharing | None:
        """Of MIG devices of profile ``profile`` on ``gpu``."""
        return self._first(node, gpu, profile)

    def _first(self, node: str, gpu: Gpu, profile: str | None) -> Sharing | None:
        fits = (rule for rule in self.rules if rule.mig_profile == profile and rule.selector.matches(node, gpu))
        return next((rule.sharing for rule in fits), self.otherwise)
