"""Claims that ask for MPS, and what a node offers as replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from api.claim_config import SharingStrategy
from dra_driver.devices.sharing import Replicas, SharingPolicy, SharingRule
from dra_driver.kube.interface import Obj
from tests.kubelet_plugin.prepare.node import config, opaque

ONE, OTHER, THIRD = (f"{digit * 8}-{digit * 4}-{digit * 4}-{digit * 4}-{digit * 12}" for digit in "123")
LIMITS = "defaultPerDevicePinnedMemoryLimit"


def mps(requests: Sequence[str] = (), /, **settings: object) -> Obj:
    """A configuration of whole GPUs with an ``mpsConfig`` of ``settings``."""
    return _mps("GpuConfig", requests, settings)


def mig_mps(requests: Sequence[str] = (), /, **settings: object) -> Obj:
    """The same of MIG devices."""
    return _mps("MigDeviceConfig", requests, settings)


def mps_for(device: str, **settings: object) -> Obj:
    """The same, as it fits ``device``."""
    return mig_mps(**settings) if "mig" in device else mps(**settings)


def _mps(kind: str, requests: Sequence[str], settings: Mapping[str, object]) -> Obj:
    sharing: Obj = {"strategy": "MPS"}
    if settings:
        sharing["mpsConfig"] = settings
    return opaque(config(kind, sharing=sharing), requests)


def slices(requests: Sequence[str] = (), kind: str = "GpuConfig") -> Obj:
    return opaque(config(kind, sharing={"strategy": "TimeSlicing"}), requests)


class Shared:
    """A ``kinds.sharing.SharingInForce`` that a test changes."""

    def __init__(self, strategy: SharingStrategy = SharingStrategy.MPS, count: int = 4) -> None:
        self.offer(strategy, count)

    def offer(self, strategy: SharingStrategy, count: int) -> None:
        """All GPUs, and all MIG devices of profile 1g.10gb."""
        replicas = Replicas(strategy, count)
        self.policy = SharingPolicy((SharingRule(replicas), SharingRule(replicas, mig_profile="1g.10gb")))

    def current(self) -> SharingPolicy:
        return self.policy
