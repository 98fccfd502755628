"""The step that fences a share, as a value, and its record. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from api.fractions import SharingBackend
from kubelet_plugin.claims.entry import StepRecord

FENCE: Final = "Fence"

_CLAIM, _DEVICE, _SHARE, _GPU, _UUID = "claim", "device", "share", "gpu", "uuid"
_BACKEND, _MEMORY, _LIMIT, _COMPUTE, _LOW = "backend", "memory", "memoryLimit", "compute", "lowPriority"


@dataclass(frozen=True, slots=True)
class FenceShare:
    """``memory`` and ``memory_limit`` in bytes: what is guaranteed, and the most; ``compute`` in percent, 0 for no
    ceiling. ``uuid``: of the device, as CUDA and NVML name it; ``gpu_uuid``: of the GPU behind it."""

    claim_uid: str
    device: str
    share_id: str
    gpu_uuid: str
    uuid: str
    backend: SharingBackend
    memory: int
    memory_limit: int
    compute: int
    low_priority: bool = False

    kind = FENCE

    def does(self) -> str:
        return f"fence share {self.share_id} of {self.device} by {self.backend}"

    def undo_does(self) -> str:
        return "take the fence down"

    def done_when(self) -> str:
        return "its limits are read back"

    def record(self) -> StepRecord:
        known = {
            _CLAIM: self.claim_uid,
            _DEVICE: self.device,
            _SHARE: self.share_id,
            _GPU: self.gpu_uuid,
            _UUID: self.uuid,
            _BACKEND: self.backend.value,
            _MEMORY: str(self.memory),
            _LIMIT: str(self.memory_limit),
            _COMPUTE: str(self.compute),
        }
        return StepRecord(self.kind, known | ({_LOW: "true"} if self.low_priority else {}))


def recorded_fence(record: StepRecord) -> FenceShare:
    """Raises KeyError or ValueError for a record that this step did not write."""
    known = record.arguments
    return FenceShare(
        claim_uid=known[_CLAIM],
        device=known[_DEVICE],
        share_id=known[_SHARE],
        gpu_uuid=known[_GPU],
        uuid=known[_UUID],
        backend=SharingBackend(known[_BACKEND]),
        memory=int(known[_MEMORY]),
        memory_limit=int(known[_LIMIT]),
        compute=int(known[_COMPUTE]),
        low_priority=_LOW in known,
    )


def fences_in(records: Iterable[StepRecord]) -> tuple[FenceShare, ...]:
    """The fences that steps of a claim have put up."""
    return tuple(recorded_fence(each) for each in records if each.kind == FENCE)
