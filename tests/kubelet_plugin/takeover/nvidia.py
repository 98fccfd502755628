"""NVIDIA's state as tests lay it down: recorded files, and files made like them for claims of a test."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dra_driver.cdi.store import CdiStore
from kubelet_plugin.takeover.nvidia_checkpoint import (
    DeviceType,
    LiveMig,
    NvidiaClaim,
    NvidiaDevice,
    NvidiaResult,
    NvidiaState,
    checksum,
)
from kubelet_plugin.takeover.nvidia_writing import encode
from kubelet_plugin.takeover.take_over import NVIDIA_FILE
from tests.kubelet_plugin.prepare.node import DRIVER, NODE

DATA = Path(__file__).parents[2] / "data/nvidia-state"
_RECORDED_CDI = Path(__file__).parents[2] / "data/nvidia-cdi/h100-full.yaml"
_RECORDED_DEVICE = "bbf84a7a-cf47-48e6-b59c-6a412dede17e-gpu-1"
RECORDED = (
    "empty",
    "empty-after-unprepare",
    "one-gpu",
    "one-gpu-and-one-timesliced",
    "one-dynamic-mig",
    "with-started",
)
RECORDED_BOOT = "b3120ec4-b1d1-4c0f-89e8-ef27c747af38"


def recorded(name: str) -> bytes:
    return (DATA / f"checkpoint-{name}.json").read_bytes()


def finished(uid: str, device: str, gpu_uuid: str, mig: LiveMig | None = None) -> NvidiaClaim:
    """A claim of one device as NVIDIA's driver has it when it is prepared: without a name."""
    prepared = NvidiaDevice(
        DeviceType.MIG if mig else DeviceType.GPU,
        ("gpu",),
        NODE,
        device,
        (f"k8s.{DRIVER}/claim={uid}-{device}",),
        gpu_uuid=gpu_uuid,
        mig=mig,
    )
    return NvidiaClaim(uid, NvidiaState.COMPLETED, (NvidiaResult("gpu", NODE, device),), (prepared,))


def begun(uid: str, device: str) -> NvidiaClaim:
    result = NvidiaResult("gpu", NODE, device)
    return NvidiaClaim(uid, NvidiaState.STARTED, (result,), namespace="default", name=uid)


def leave(folder: Path, cdi: CdiStore, claims: Sequence[NvidiaClaim], boot_id: str) -> None:
    """What NVIDIA's driver has in its ``folder`` and in the CDI folder when it has prepared ``claims``."""
    (folder / NVIDIA_FILE).write_bytes(encode(claims, DRIVER, boot_id))
    for claim in claims:
        for device in claim.devices:
            leave_cdi(cdi, claim.uid, device.name)


def leave_cdi(cdi: CdiStore, uid: str, device: str) -> None:
    """A file that NVIDIA's driver wrote, with the names of another claim."""
    cdi.root.mkdir(parents=True, exist_ok=True)
    cdi.path(uid).write_text(_RECORDED_CDI.read_text().replace(_RECORDED_DEVICE, f"{uid}-{device}"))


def of_form_v1(v1: dict[str, Any]) -> bytes:
    """A file as a release up to 25.3 writes it."""
    text = json.dumps(v1, separators=(",", ":"))
    verified = checksum(f'{{"checksum":0,"v1":{text}}}')
    return f'{{"checksum":{verified},"v1":{text}}}'.encode()


def with_state(data: bytes, **config_state: Any) -> bytes:
    """The file in form v1, in which every claim has ``config_state``."""
    v1 = json.loads(data)["v1"]
    for claim in v1["preparedClaims"].values():
        for group in claim["preparedDevices"]:
            group["configState"] = config_state
    return of_form_v1(v1)


def kubelet_file(*uids: str) -> bytes:
    """The kubelet's own record of claims ``team/claim-<uid>``."""
    claims = [{"ClaimUID": uid, "ClaimName": f"claim-{uid}", "Namespace": "team"} for uid in uids]
    return checked(
        {"kind": "DRACheckpoint", "apiVersion": "checkpoint.dra.kubelet.k8s.io/v1", "ClaimInfoStateList": claims}
    )


def checked(inner: object) -> bytes:
    """``inner`` as the kubelet wraps it."""
    data = json.dumps(inner)
    return json.dumps({"Data": data, "Checksum": zlib.crc32(data.encode())}).encode()
