"""Names of CDI files and devices of claims, as NVIDIA's driver gives them. Pure.

A device name carries the claim's UID (and the share id, when the device is shared by capacity), so that no name is ever
used for a second content: runtimes keep what they have read, and a restarted container must not get another's edits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dra_driver.errors import StateError

VENDOR = "k8s.gpu.nvidia.com"
CLASS = "claim"

_UID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_SUFFIX = ".yaml"


@dataclass(frozen=True, slots=True)
class CdiNames:
    vendor: str = VENDOR
    class_: str = CLASS

    @property
    def kind(self) -> str:
        """``k8s.gpu.nvidia.com/claim``"""
        return f"{self.vendor}/{self.class_}"

    def device_name(self, claim_uid: str, device: str, share_id: str | None = None) -> str:
        """``<uid>-gpu-1``, or ``<uid>-gpu-1-<share id>``."""
        return f"{claim_uid}-{device}-{share_id}" if share_id else f"{claim_uid}-{device}"

    def device_id(self, claim_uid: str, device: str, share_id: str | None = None) -> str:
        """The qualified name for the kubelet: ``k8s.gpu.nvidia.com/claim=<uid>-gpu-1``."""
        return f"{self.kind}={self.device_name(claim_uid, device, share_id)}"

    def file_name(self, claim_uid: str) -> str:
        """Raises :class:`StateError` for a UID that does not belong in a file name."""
        if not _UID.fullmatch(claim_uid):
            raise StateError(f"claim UID {claim_uid!r} cannot be part of a CDI file name")
        return f"{self.vendor}-{self.class_}_{claim_uid}{_SUFFIX}"

    def claim_uid(self, file_name: str) -> str | None:
        """The claim that a file belongs to; None for a file that is not ours."""
        prefix = f"{self.vendor}-{self.class_}_"
        if not file_name.startswith(prefix) or not file_name.endswith(_SUFFIX):
            return None
        uid = file_name.removeprefix(prefix).removesuffix(_SUFFIX)
        return uid if _UID.fullmatch(uid) else None
