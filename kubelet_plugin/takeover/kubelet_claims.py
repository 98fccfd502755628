"""Which claims the kubelet still has on this node, from its own checkpoint. Pure.

The kubelet writes a claim down before it asks for its first prepare, and forgets it after its last unprepare (pkg/
kubelet/cm/dra, claiminfo.go; state/checkpoint.go). So a claim that it does not have is in no container, and nobody will
ever ask to unprepare it. Only that conclusion, and a claim's name, are taken from the file; one that is not exactly as
expected says nothing::

    {"Data":"{\\"kind\\":\\"DRACheckpoint\\",\\"apiVersion\\":\\"checkpoint.dra.kubelet.k8s.io/v1\\",
    \\"ClaimInfoStateList\\":[{\\"ClaimUID\\":...,\\"ClaimName\\":...,\\"Namespace\\":...,...}]}",
    "Checksum":<CRC-32 of Data>}
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from kubelet_plugin.claims.model import ClaimRef

FILE_NAME = "dra_manager_state"  # in the kubelet's root folder, /var/lib/kubelet

_API = ("DRACheckpoint", "checkpoint.dra.kubelet.k8s.io/v1")


@dataclass(frozen=True, slots=True)
class KubeletClaims:
    """Claims by UID. ``known`` is whether the kubelet's word could be read at all."""

    by_uid: Mapping[str, ClaimRef] = field(default_factory=dict, hash=False)
    known: bool = True

    def has_forgotten(self, uid: str) -> bool:
        """Whether the kubelet surely does not have the claim."""
        return self.known and uid not in self.by_uid

    def ref(self, uid: str, namespace: str = "", name: str = "") -> ClaimRef:
        """The claim with its name, where anybody knows that."""
        return ClaimRef(namespace, name, uid) if name else self.by_uid.get(uid, ClaimRef("", "", uid))


NO_WORD = KubeletClaims(known=False)


def decode(data: bytes) -> KubeletClaims:
    """``NO_WORD`` for a file of another form."""
    try:
        outer = json.loads(data)
        if zlib.crc32(outer["Data"].encode()) != outer["Checksum"]:
            return NO_WORD
        inner = json.loads(outer["Data"])
        if (inner["kind"], inner["apiVersion"]) != _API:
            return NO_WORD
        claims = inner["ClaimInfoStateList"] or ()
        return KubeletClaims(
            {claim["ClaimUID"]: ClaimRef(claim["Namespace"], claim["ClaimName"], claim["ClaimUID"]) for claim in claims}
        )
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return NO_WORD
