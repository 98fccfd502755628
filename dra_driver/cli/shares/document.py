"""What ``gpu-dra shares -o json`` prints, for programs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dra_driver.allocator.model import ClaimKey
from dra_driver.cli.shares.fences import ShareFence
from dra_driver.cli.shares.use import Blocked, DeviceUse, Holder, NodeUse, Share
from dra_driver.cli.shares.words import fence, taint_words
from dra_driver.quantity import Quantity


def shares_json(nodes: Sequence[NodeUse], driver: str) -> dict[str, Any]:
    """All that the tables say, in keys that stay::

        driver
        nodes[]       name, notes[]
          devices[]   device      the row's name: a replica device's is that of the device that it stands for
                      devices[]   the names that claims have: one, or the replica devices
                      uuid        of the device; null while a MIG device does not exist
                      gpuUUID, product
                      sharedBy    fractions, counted, TimeSlicing, MPS, exclusive, or "not told"
                      fence       what stops a holder from using more
                      sharingBackend, sharingEnforcement
                                  as published, of what is offered in fractions, else null
                      capacity    by name: value, held, free, and largest, what one more request could have of it; null
                                  when it could have nothing, and for what has no request policy. A device that is
                                  given as a whole, and a replica device, count as one of "shares"
                      blocked     null while a request could have something; else why (full, inUse, hardwareInUse,
                                  tainted, pool, policy), detail, claims[] (namespace, name)
                      taints[]    key, value, effect, word
                      holders[]   claim (namespace, name), pods[] (namespace, name, phase), consumes by capacity,
                                  shares[] (id, null for what is no share; device, consumes; fence)
                          fence   what the claim's status says of a fraction, else null: enforced, reason, message and
                                  since of its condition, and the data: backend, enforcement, memoryBytes,
                                  computePercent, memoryLimitBytes

    Amounts are Kubernetes quantities, as text.
    """
    return {
        "driver": driver,
        "nodes": [
            {
                "name": node.name,
                "notes": list(node.notes),
                "devices": [_device_json(row, driver) for row in node.devices],
            }
            for node in nodes
        ],
    }


def _device_json(row: DeviceUse, driver: str) -> dict[str, Any]:
    return {
        "device": row.name,
        "devices": list(row.devices),
        "uuid": row.uuid or None,
        "gpuUUID": row.gpu_uuid or None,
        "product": row.product or None,
        "sharedBy": row.shared_by,
        "fence": fence(row),
        "sharingBackend": None if row.fence is None else row.fence.backend,
        "sharingEnforcement": None if row.fence is None else row.fence.enforcement,
        "capacity": {
            use.name: {
                "value": str(use.value),
                "held": str(use.held),
                "free": str(use.free),
                "largest": None if use.largest is None else str(use.largest),
            }
            for use in row.uses
        },
        "blocked": _blocked_json(row.blocked),
        "taints": [
            {"key": taint.key, "value": taint.value, "effect": taint.effect, "word": taint_words(taint, driver)[0]}
            for taint in row.taints
        ],
        "holders": [_holder_json(holder) for holder in row.holders],
    }


def _blocked_json(blocked: Blocked | None) -> dict[str, Any] | None:
    if blocked is None:
        return None
    return {
        "why": blocked.why.value,
        "detail": blocked.detail,
        "claims": [_claim_json(claim) for claim in blocked.claims],
    }


def _holder_json(holder: Holder) -> dict[str, Any]:
    return {
        "claim": _claim_json(holder.claim),
        "pods": [{"namespace": holder.claim.namespace, "name": pod.name, "phase": pod.phase} for pod in holder.pods],
        "consumes": _amounts_json(holder.consumes),
        "shares": [_share_json(share) for share in holder.shares],
    }


def _share_json(share: Share) -> dict[str, Any]:
    return {
        "id": share.id or None,
        "device": share.device,
        "consumes": _amounts_json(share.consumes),
        "fence": None if share.fence is None else _fence_json(share.fence),
    }


def _fence_json(told: ShareFence) -> dict[str, Any]:
    condition = {
        "enforced": told.enforced,
        "reason": told.reason,
        "message": told.message,
        "since": told.since,
    }
    return {**told.data, **condition}


def _claim_json(claim: ClaimKey) -> dict[str, str]:
    return {"namespace": claim.namespace, "name": claim.name}


def _amounts_json(found: Mapping[str, Quantity]) -> dict[str, str]:
    return {name: str(quantity) for name, quantity in found.items()}
