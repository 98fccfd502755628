"""NVIDIA's checkpoint, written: keys, their order and what is left out are those of its Go types. Pure.

Its plugin takes the checksums over what it makes of the file, so the file must come out the same when it reads it and
writes it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from kubelet_plugin.takeover.nvidia_checkpoint import (
    NvidiaClaim,
    NvidiaDevice,
    NvidiaResult,
    NvidiaState,
    checksum,
)

Json = dict[str, Any]


def encode(claims: Iterable[NvidiaClaim], driver_name: str, boot_id: str) -> bytes:
    """The file as NVIDIA's plugin writes it: it must come out the same when that plugin reads and writes it again."""
    ordered = sorted(claims, key=lambda claim: claim.uid)
    v2_claims = {claim.uid: _claim_v2(claim, driver_name) for claim in ordered}
    v1_claims = {
        claim.uid: {key: v2_claims[claim.uid][key] for key in ("status", "preparedDevices")}
        for claim in ordered
        if claim.state is NvidiaState.COMPLETED
    }
    v1 = _go_json({"preparedClaims": v1_claims} if v1_claims else {})
    v2: Json = {"preparedClaims": v2_claims} if v2_claims else {}
    if boot_id:
        v2["nodeBootID"] = boot_id
    checksum_v1 = checksum(f'{{"checksum":0,"v1":{v1}}}')
    checksum_v2 = checksum(_go_json({"checksum": 0, **v2}))
    v2_text = _go_json({"checksum": checksum_v2, **v2})
    return f'{{"checksum":{checksum_v1},"v1":{v1},"v2":{v2_text}}}'.encode()


def _claim_v2(claim: NvidiaClaim, driver_name: str) -> Json:
    results = [_result_document(result, driver_name) for result in claim.results]
    document: Json = {
        "checkpointState": str(claim.state),
        # Its plugin looks into the allocation without asking whether there is one.
        "status": {"allocation": {"devices": {"results": results} if results else {}}},
    }
    if claim.state is NvidiaState.COMPLETED:
        state = {"timeSliceApplied": True} if claim.time_sliced else {}
        devices = [_device_document(device) for device in claim.devices]
        document["preparedDevices"] = [{"devices": devices, "configState": state}]
    # It keeps names of begun claims only, but reads those of all.
    document |= {"name": claim.name} if claim.name else {}
    document |= {"namespace": claim.namespace} if claim.namespace else {}
    return document


def _result_document(result: NvidiaResult, driver_name: str) -> Json:
    document: Json = {
        "request": result.request,
        "driver": driver_name,
        "pool": result.pool,
        "device": result.device,
    }
    document |= {"adminAccess": True} if result.admin_access else {}
    document |= {"shareID": result.share_id} if result.share_id else {}
    return document


def _device_document(device: NvidiaDevice) -> Json:
    answer: Json = {
        "Requests": list(device.requests),
        "PoolName": device.pool,
        "DeviceName": device.name,
        "CDIDeviceIDs": list(device.cdi_ids),
    }
    answer |= {"ShareID": device.share_id} if device.share_id else {}
    if device.mig is None:
        return {"gpu": {"info": {"uuid": device.gpu_uuid}, "device": answer}, "mig": None}
    concrete = {
        "parentMinor": device.mig.parent_minor,
        "giId": device.mig.gpu_instance,
        "ciId": device.mig.compute_instance,
        "migUUID": device.mig.uuid,
        "parentUUID": device.mig.parent_uuid,
    }
    return {"gpu": None, "mig": {"concrete": concrete, "device": answer}}


def _go_json(document: Mapping[str, Any]) -> str:
    """As Go's encoding/json writes it: without spaces, and with what means something to HTML escaped."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
