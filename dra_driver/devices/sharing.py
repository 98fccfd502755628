"""Which devices are offered as several shares (replicas), and how their holders share them. Values and pure functions.

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
class SharingRule:
    """``mig_profile``: which MIG devices of the selected GPUs, as in ``1g.10gb``; None for the GPUs as a whole."""

    replicas: Replicas
    selector: GpuSelector = field(default_factory=GpuSelector)
    mig_profile: str | None = None


@dataclass(frozen=True, slots=True)
class SharingPolicy:
    """``rules`` in their order: the first that fits a device decides about it."""

    rules: tuple[SharingRule, ...] = ()

    def for_gpu(self, node: str, gpu: Gpu) -> Replicas | None:
        return self._first(node, gpu, None)

    def for_mig(self, node: str, gpu: Gpu, profile: str) -> Replicas | None:
        """Of MIG devices of profile ``profile`` on ``gpu``."""
        return self._first(node, gpu, profile)

    def _first(self, node: str, gpu: Gpu, profile: str | None) -> Replicas | None:
        fits = (rule for rule in self.rules if rule.mig_profile == profile and rule.selector.matches(node, gpu))
        return next((rule.replicas for rule in fits), None)
