"""The values that cross the prepare seam: what the kubelet asks, what it is answered.

The kubelet sends only namespace, UID and name of a claim (dra.v1.Claim); everything else, the share id included, comes
from the claim's allocation. Every asked UID gets an answer, since a missing one fails the pod (kubelet, cm/dra).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from dra_driver.errors import DriverError


@dataclass(frozen=True, slots=True)
class ClaimRef:
    """A claim as the kubelet names it. Identity is the UID; names are reused, and of another driver's not known."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}:{self.uid}" if self.name else self.uid


@dataclass(frozen=True, slots=True)
class PreparedDevice:
    """dra.v1.Device: one allocated device and the CDI ids that inject it. Request names are parent names."""

    request_names: tuple[str, ...]
    pool_name: str
    device_name: str
    cdi_device_ids: tuple[str, ...]
    share_id: str | None = None


class Operation(StrEnum):
    """What the kubelet asks for."""

    PREPARE = "prepare"
    UNPREPARE = "unprepare"


Failures = Sequence[tuple[ClaimRef, DriverError]]
"""The claims of a call that got an error."""

DeviceKey = tuple[str, str | None]
"""A device of a claim on this node: its name, and its share id where it is shared."""

PrepareOutcome = tuple[PreparedDevice, ...] | DriverError
UnprepareOutcome = DriverError | None


class ClaimPreparer(Protocol):
    """What the DRA service needs of the prepare engine. Calls may come in parallel and be repeated."""

    def prepare(self, claims: Sequence[ClaimRef], *, timeout: float) -> Mapping[str, PrepareOutcome]:
        """An answer for every UID, within ``timeout`` seconds; work that takes longer goes on, and a retry joins it."""
        ...

    def unprepare(self, claims: Sequence[ClaimRef], *, timeout: float) -> Mapping[str, UnprepareOutcome]:
        """None is success; an unknown claim is a success. Needs no API read."""
        ...
