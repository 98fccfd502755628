"""What the plugin remembers of a claim, and the one way to write it down.

A :class:`ClaimEntry` is everything needed to answer a repeated prepare, to refuse a second owner of a device, and to
undo each step without the claim, the API server or the hardware's help. Entries are values; ``checkpoint`` keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dra_driver.devices.naming import is_replica
from kubelet_plugin.claims.model import ClaimRef, DeviceKey, PreparedDevice

Json = dict[str, Any]


class ClaimState(StrEnum):
    """How far a claim is. From the started states the next prepare, unprepare or start of the plugin goes on."""

    PREPARE_STARTED = "PrepareStarted"  # steps may have been done
    COMPLETED = "PrepareCompleted"
    UNPREPARE_STARTED = "UnprepareStarted"  # steps may have been undone
    RECORD_LOST = "RecordLost"  # the record was damaged; a CDI file shows that the claim was prepared


@dataclass(frozen=True, slots=True)
class HeldDevice:
    """A device of the node in the hands of a claim."""

    prepared: PreparedDevice
    gpu_uuid: str  # the physical GPU behind it; empty when the record was lost
    admin_access: bool = False

    @property
    def is_share(self) -> bool:
        """As :attr:`kubelet_plugin.claims.allocated.AllocatedDevice.is_share`."""
        return self.prepared.share_id is not None or is_replica(self.prepared.device_name)

    @property
    def is_exclusive(self) -> bool:
        """Whether no other claim may have it: not with admin access, not as a share."""
        return not self.admin_access and self.prepared.share_id is None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step in the journal: its kind and what undoing it needs. ``result`` is what doing it brought about: the steps
    after it know that, and it is recorded when all are done."""

    kind: str
    arguments: Mapping[str, str] = field(default_factory=dict, hash=False)
    result: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class ClaimEntry:
    """One claim in the checkpoint. ``steps`` are in the order in which they are done."""

    ref: ClaimRef
    state: ClaimState
    boot_id: str  # of the boot in which it was prepared
    devices: tuple[HeldDevice, ...]
    steps: tuple[StepRecord, ...]

    @property
    def prepared(self) -> tuple[PreparedDevice, ...]:
        return tuple(device.prepared for device in self.devices)

    @property
    def device_keys(self) -> frozenset[DeviceKey]:
        return frozenset((device.device_name, device.share_id) for device in self.prepared)

    def is_prepared(self, boot_id: str) -> bool:
        """Whether the claim is ready for containers: a reboot empties the CDI folder and resets hardware."""
        return self.state is ClaimState.COMPLETED and self.boot_id == boot_id

    @property
    def title(self) -> str:
        """The claim in words. A lost record has no name."""
        return f"{self.ref.namespace}/{self.ref.name}" if self.ref.name else f"with UID {self.ref.uid}"

    @property
    def holder(self) -> str:
        """The same for whoever wants what it has: that may be a later claim of the same name."""
        return str(self.ref) if self.ref.name else self.title


def entry_to_json(entry: ClaimEntry) -> Json:
    return {
        "namespace": entry.ref.namespace,
        "name": entry.ref.name,
        "uid": entry.ref.uid,
        "state": str(entry.state),
        "bootID": entry.boot_id,
        "devices": [_device_to_json(device) for device in entry.devices],
        "steps": [
            {"kind": step.kind, "arguments": dict(step.arguments), "result": dict(step.result)} for step in entry.steps
        ],
    }


def entry_from_json(document: Mapping[str, Any]) -> ClaimEntry:
    """Raises KeyError, TypeError or ValueError for a document that :func:`entry_to_json` did not make."""
    return ClaimEntry(
        ref=ClaimRef(_text(document["namespace"]), _text(document["name"]), _text(document["uid"])),
        state=ClaimState(document["state"]),
        boot_id=_text(document["bootID"]),
        devices=tuple(_device_from_json(device) for device in document["devices"]),
        steps=tuple(
            StepRecord(_text(step["kind"]), _texts(step["arguments"]), _texts(step["result"]))
            for step in document["steps"]
        ),
    )


def _device_to_json(device: HeldDevice) -> Json:
    document: Json = {
        "requests": list(device.prepared.request_names),
        "pool": device.prepared.pool_name,
        "device": device.prepared.device_name,
        "cdiDeviceIDs": list(device.prepared.cdi_device_ids),
        "gpuUUID": device.gpu_uuid,
    }
    if device.prepared.share_id is not None:
        document["shareID"] = device.prepared.share_id
    if device.admin_access:
        document["adminAccess"] = True
    return document


def _device_from_json(document: Mapping[str, Any]) -> HeldDevice:
    share_id = document.get("shareID")
    return HeldDevice(
        prepared=PreparedDevice(
            request_names=tuple(map(_text, document["requests"])),
            pool_name=_text(document["pool"]),
            device_name=_text(document["device"]),
            cdi_device_ids=tuple(map(_text, document["cdiDeviceIDs"])),
            share_id=None if share_id is None else _text(share_id),
        ),
        gpu_uuid=_text(document["gpuUUID"]),
        admin_access=document.get("adminAccess") is True,
    )


def _texts(document: Mapping[str, Any]) -> dict[str, str]:
    return {_text(key): _text(value) for key, value in document.items()}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value
