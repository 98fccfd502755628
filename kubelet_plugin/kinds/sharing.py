"""What several wrappers ask about shares: how a device is offered on this node right now."""

from __future__ import annotations

from typing import Protocol

from dra_driver.devices.mig_devices import profile_on
from dra_driver.devices.naming import GpuName, MigName
from dra_driver.devices.sharing import Sharing, SharingPolicy
from dra_driver.hardware.model import Gpu


class SharingInForce(Protocol):
    """Which devices are offered as several shares. Thread-safe; asked while claims are prepared, so it never waits."""

    def current(self) -> SharingPolicy: ...


class NothingShared:
    """A ``SharingInForce`` of a node that offers no shares."""

    def current(self) -> SharingPolicy:
        return SharingPolicy()


def sharing_of_name(name: GpuName | MigName | None, gpu: Gpu, policy: SharingPolicy, node: str) -> Sharing | None:
    """How the device of that name on ``gpu`` is offered."""
    if not isinstance(name, MigName):
        return policy.for_gpu(node, gpu)
    profile = profile_on(gpu, name)
    return None if profile is None else policy.for_mig(node, gpu, profile)
