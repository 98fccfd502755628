"""NVIDIA's checkpoint, read: the claims that its GPU plugin has prepared on this node. Pure.

The file is ``checkpoint.json`` in the folder that both drivers share (dra-driver-nvidia-gpu, cmd/gpu-kubelet-plugin,
checkpoint.go, checkpointv.go, prepared.go)::

    {"checksum":N,"v1":{"preparedClaims":{...}},"v2":{"checksum":M,"preparedClaims":{...},"nodeBootID":"..."}}

Both forms are written, so that an older plugin can go on with it; v1, the only one up to release 25.3, has finished
claims only. A checksum is 32-bit FNV-1a over the way in which Go's spew prints the bytes of the JSON, with the checksum
itself 0. It is taken here over the text of the file and not over what is understood of it, so a later version's
additional fields do no harm. NVIDIA's plugin does not start on a file that does not verify.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dra_driver.errors import StateError

_V1_OPENING = re.compile(r'\{"checksum":(\d+),"v1":')
_V2_OPENING = re.compile(r'(?:,"v2":|\{"checksum":\d+,"v2":)(?=(\{"checksum":(\d+)))')
_DECODER = json.JSONDecoder()


class UnknownCheckpoint(StateError):
    """The file says nothing that can be relied on."""

    reason = "UnknownCheckpoint"


class NvidiaState(StrEnum):
    """How far a claim is."""

    STARTED = "PrepareStarted"  # anything may have been done
    COMPLETED = "PrepareCompleted"


class DeviceType(StrEnum):
    """Under which key a prepared device is recorded."""

    GPU = "gpu"
    MIG = "mig"
    VFIO = "vfio"


@dataclass(frozen=True, slots=True)
class NvidiaResult:
    """One device of the allocation, of this driver's."""

    request: str
    pool: str
    device: str
    share_id: str | None = None
    admin_access: bool = False


@dataclass(frozen=True, slots=True)
class LiveMig:
    """The instances behind a prepared MIG device. Releases up to 25.8 recorded ``uuid`` alone."""

    uuid: str
    parent_uuid: str = ""
    parent_minor: int | None = None
    gpu_instance: int | None = None
    compute_instance: int | None = None


@dataclass(frozen=True, slots=True)
class NvidiaDevice:
    """One prepared device and what the kubelet was answered for it. ``gpu_uuid``: the physical GPU's, where it says."""

    type: DeviceType
    requests: tuple[str, ...]
    pool: str
    name: str
    cdi_ids: tuple[str, ...]
    share_id: str | None = None
    gpu_uuid: str = ""
    mig: LiveMig | None = None


@dataclass(frozen=True, slots=True)
class NvidiaClaim:
    """One claim. Finished ones have no name in NVIDIA's own files, since its plugin drops it; begun ones no devices."""

    uid: str
    state: NvidiaState
    results: tuple[NvidiaResult, ...] = ()
    devices: tuple[NvidiaDevice, ...] = ()
    namespace: str = ""
    name: str = ""
    mps_daemons: tuple[str, ...] = ()  # ids of control daemons, where MPS was applied
    time_sliced: bool = False


@dataclass(frozen=True, slots=True)
class NvidiaCheckpoint:
    """What the file says. ``boot_id`` is empty in files of releases before 0.4. ``problems``: what was passed over."""

    claims: tuple[NvidiaClaim, ...]
    boot_id: str = ""
    problems: tuple[str, ...] = ()


def decode(data: bytes, driver_name: str) -> NvidiaCheckpoint:
    """The newest form in ``data`` that verifies. Raises :class:`UnknownCheckpoint`, saying why there is none."""
    try:
        text = data.decode()
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnknownCheckpoint(f"it is not whole JSON: {error}") from error
    if not isinstance(document, dict):
        raise UnknownCheckpoint("it is not a JSON object")
    forms = [form for form in ("v2", "v1") if isinstance(document.get(form), dict)]
    if not forms:
        found = ", ".join(sorted(map(str, document))) or "nothing"
        raise UnknownCheckpoint(f"it has neither the form v1 nor v2, but {found}: another version wrote it")
    verified = [form for form in forms if _VERIFIES[form](text)]
    if not verified:
        raise UnknownCheckpoint(f"the checksum of its form {' and '.join(forms)} does not match: it was changed or cut")
    form = verified[0]
    claims, problems = _claims(document[form].get("preparedClaims") or {}, driver_name)
    if form != forms[0]:
        problems = (f"the checksum of its form {forms[0]} does not match, and {form} is used instead", *problems)
    boot_id = document[form].get("nodeBootID")
    return NvidiaCheckpoint(claims, boot_id if isinstance(boot_id, str) else "", problems)


def checksum(text: str) -> int:
    """FNV-1a of what ``spew`` prints for the bytes of ``text`` (kubelet checkpointmanager, checksum.New of []byte)."""
    found = 0x811C9DC5
    for byte in b"([]uint8)[" + " ".join(map(str, text.encode())).encode() + b"]":
        found = ((found ^ byte) * 0x01000193) & 0xFFFFFFFF
    return found


def _v1_verifies(text: str) -> bool:
    opening = _V1_OPENING.match(text)
    if opening is None:
        return False
    _value, end = _DECODER.raw_decode(text, opening.end())
    return checksum(f'{{"checksum":0,"v1":{text[opening.end() : end]}}}') == int(opening[1])


def _v2_verifies(text: str) -> bool:
    first = _V1_OPENING.match(text)
    start = _DECODER.raw_decode(text, first.end())[1] if first else 0
    opening = _V2_OPENING.match(text, start)
    if opening is None:
        return False
    _value, end = _DECODER.raw_decode(text, opening.end())
    return checksum(f'{{"checksum":0{text[opening.end() + len(opening[1]) : end]}') == int(opening[2])


_VERIFIES = {"v1": _v1_verifies, "v2": _v2_verifies}


# -- reading -----------------------------------------------------------------------------------------------------------


def _claims(documents: Any, driver_name: str) -> tuple[tuple[NvidiaClaim, ...], tuple[str, ...]]:
    claims: list[NvidiaClaim] = []
    problems: list[str] = []
    if not isinstance(documents, dict):
        return (), (f"preparedClaims is {documents!r}",)
    for uid, document in documents.items():
        try:
            claims.append(_claim(uid, document, driver_name))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.append(f"claim {uid} is not understood: {type(error).__name__} {error}")
    return tuple(claims), tuple(problems)


def _claim(uid: str, document: Mapping[str, Any], driver_name: str) -> NvidiaClaim:
    """Of form v2; in v1 there are finished claims only, and no state."""
    allocation = (document.get("status") or {}).get("allocation") or {}
    results = (allocation.get("devices") or {}).get("results") or ()
    groups = document.get("preparedDevices") or ()
    states = [group.get("configState") or {} for group in groups]
    return NvidiaClaim(
        uid=uid,
        state=NvidiaState(document.get("checkpointState", NvidiaState.COMPLETED)),
        results=tuple(_result(result) for result in results if result["driver"] == driver_name),
        devices=tuple(_device(device) for group in groups for device in group["devices"] or ()),
        namespace=_text(document.get("namespace", "")),
        name=_text(document.get("name", "")),
        # Releases before 0.5 have no mpsApplied; an id says the same there.
        mps_daemons=tuple(
            state["mpsControlDaemonID"]
            for state in states
            if state.get("mpsControlDaemonID") and state.get("mpsApplied", True)
        ),
        time_sliced=any(state.get("timeSliceApplied", False) for state in states),
    )


def _result(document: Mapping[str, Any]) -> NvidiaResult:
    return NvidiaResult(
        request=_text(document["request"]),
        pool=_text(document["pool"]),
        device=_text(document["device"]),
        share_id=_text_or_none(document.get("shareID")),
        admin_access=document.get("adminAccess") is True,
    )


def _device(document: Mapping[str, Any]) -> NvidiaDevice:
    type_ = next((each for each in DeviceType if document.get(each)), None)
    if type_ is None:
        raise ValueError(f"a device of type {' or '.join(document)}")
    found = document[type_]
    answer = found["device"]
    live = _live_mig(found) if type_ is DeviceType.MIG else None
    return NvidiaDevice(
        type=type_,
        requests=tuple(map(_text, answer.get("Requests") or ())),
        pool=_text(answer["PoolName"]),
        name=_text(answer["DeviceName"]),
        cdi_ids=tuple(map(_text, answer.get("CDIDeviceIDs") or ())),
        share_id=_text_or_none(answer.get("ShareID")),
        gpu_uuid=live.parent_uuid if live else _text((found.get("info") or {}).get("uuid", "")),
        mig=live,
    )


def _live_mig(found: Mapping[str, Any]) -> LiveMig:
    concrete = found.get("concrete")
    if not concrete:
        return LiveMig(uuid=_text((found.get("info") or {}).get("uuid", "")))
    return LiveMig(
        uuid=_text(concrete["migUUID"]),
        parent_uuid=_text(concrete["parentUUID"]),
        parent_minor=concrete["parentMinor"],
        gpu_instance=concrete["giId"],
        compute_instance=concrete["ciId"],
    )


def _text(value: Any) -> str:
    """``value``, which goes into a record of ours and must be text there."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} where text belongs")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)
