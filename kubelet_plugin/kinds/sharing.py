"""What several wrappers ask about shares: how a device is offered on this node right now."""

from __future__ import annotations

from typing import Protocol

from dra_driver.devices.sharing import SharingPolicy


class SharingInForce(Protocol):
    """Which devices are offered as several shares. Thread-safe; asked while claims are prepared, so it never waits."""

    def current(self) -> SharingPolicy: ...


class NothingShared:
    """A ``SharingInForce`` of a node that offers no shares."""

    def current(self) -> SharingPolicy:
        return SharingPolicy()
