"""What fences fractions: of a device by its attributes, of each share by ``status.devices`` of its claim. Pure.

The driver's kubelet plugins write that status (KEP-4817), with condition ``Enforced`` and the limits as data. A claim
that is not prepared yet says nothing, and so does one that has all of a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from api.fractions import SharingBackend
from dra_driver.allocator.model import ClaimKey, DeviceId
from dra_driver.allocator.parse import claim_key
from dra_driver.kube.interface import Obj
from kubelet_plugin.kinds.fence.status import ENFORCED

ShareKey = tuple[ClaimKey, DeviceId, str]
"""A share: of which claim, of which device, and its id."""


@dataclass(frozen=True, slots=True)
class Fence:
    """In the words of ``api.fractions``, or of a newer version: a ``SharingBackend`` and an ``Enforcement``."""

    backend: str
    enforcement: str

    def __str__(self) -> str:
        if self.backend == SharingBackend.NONE:
            return "none"
        return f"{self.backend} ({self.enforcement})" if self.enforcement else self.backend


@dataclass(frozen=True, slots=True)
class ShareFence:
    """``enforced``, ``reason``, ``message`` and ``since`` are those of the condition. ``data`` as it stands there."""

    fence: Fence
    enforced: str
    reason: str
    message: str
    since: str
    data: Mapping[str, Any] = field(hash=False)


def share_fences(claims: Iterable[Obj], driver: str) -> dict[ShareKey, ShareFence]:
    """What ``claims`` say of their shares of the devices of ``driver``."""
    return {
        (claim_key(claim), DeviceId(driver, entry["pool"], entry["device"]), entry.get("shareID") or ""): told
        for claim in claims
        for entry in (claim.get("status") or {}).get("devices") or ()
        if entry["driver"] == driver and (told := _told(entry)) is not None
    }


def _told(entry: Obj) -> ShareFence | None:
    """None for a status that is about something else."""
    conditions = (each for each in entry.get("conditions") or () if each["type"] == ENFORCED)
    condition, data = next(conditions, None), entry.get("data")
    if condition is None or not isinstance(data, dict) or "backend" not in data:
        return None
    return ShareFence(
        fence=Fence(str(data["backend"]), str(data.get("enforcement") or "")),
        enforced=condition["status"],
        reason=condition.get("reason") or "",
        message=condition.get("message") or "",
        since=condition.get("lastTransitionTime") or "",
        data=data,
    )
