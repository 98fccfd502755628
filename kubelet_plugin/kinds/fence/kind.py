"""The wrapper: which shares are fenced, what is refused, what containers see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from api.claim_config import ClaimConfig, ClientPriority, FractionConfig
from api.fractions import SharingBackend
from api.memory import in_bytes
from dra_driver.cdi.spec import ContainerEdits, join_edits
from dra_driver.errors import DeviceNotFound
from dra_driver.hardware.model import Machine
from kubelet_plugin.claims.entry import ClaimEntry, HeldDevice, StepRecord
from kubelet_plugin.claims.model import ClaimRef
from kubelet_plugin.kinds.fence.refused import refused_beside, refused_settings, refused_together, settings_of
from kubelet_plugin.kinds.fence.step import FENCE, FenceShare, fences_in, recorded_fence
from kubelet_plugin.kinds.fence.tools import FenceRunner, FenceTools, tool_of
from kubelet_plugin.kinds.fractions import FractionFences, fraction_of
from kubelet_plugin.kinds.gpus import device_uuid, gpu_behind, memory_of
from kubelet_plugin.prepare.kind import ClaimDevice, Mended, Others, Refusal, StepRunner, Wrapper


class Fences(Wrapper):
    """Around shares for which memory and compute were counted."""

    name = "fence"

    def __init__(self, fences: FractionFences, tools: FenceTools) -> None:
        self._fences = fences
        self._tools = tools

    def wraps(self, device: ClaimDevice) -> bool:
        return bool(self._fences.fences(device))

    def honours(self, config: ClaimConfig) -> bool:
        return isinstance(config, FractionConfig)

    def refuses(self, device: ClaimDevice, beside: Sequence[ClaimDevice], others: Others) -> Refusal | None:
        fraction, backends = fraction_of(device.allocated), self._fences.fences(device)
        if fraction is None:
            return None
        gpu = gpu_behind(device.place)
        memory = None if gpu is None else memory_of(device.allocated.device, gpu)
        same = (each.allocated for each in beside if each.allocated.device == device.allocated.device)
        of_claim = [each for each in map(fraction_of, same) if each is not None]
        together = refused_together(device, fraction, memory, of_claim, others.entries)
        if not backends:
            return together
        theirs = [(other, self._fences.fences(other)) for other in beside]
        return (
            refused_settings(device, fraction, backends, memory) or refused_beside(device, backends, theirs) or together
        )

    def making_steps(self, devices: Sequence[ClaimDevice]) -> tuple[FenceShare, ...]:
        return tuple(_step(device, backend) for device in devices for backend in self._fences.fences(device))

    def again(self, record: StepRecord) -> FenceShare:
        return recorded_fence(record)

    def runners(self) -> Mapping[str, StepRunner]:
        return {FENCE: FenceRunner(self._tools)}

    def late_edits(self, device: ClaimDevice, done: Sequence[StepRecord]) -> ContainerEdits:
        key = (device.allocated.device, device.allocated.share_id)
        mine = (fence for fence in fences_in(done) if (fence.device, fence.share_id) == key)
        return join_edits(*(tool_of(self._tools, fence).edits(fence) for fence in mine))

    def trouble(self, device: HeldDevice, entry: ClaimEntry, machine: Machine) -> str:
        key = (device.prepared.device_name, device.prepared.share_id)
        mine = (fence for fence in fences_in(entry.steps) if (fence.device, fence.share_id) == key)
        return "; ".join(filter(None, (tool_of(self._tools, fence).trouble(fence) for fence in mine)))

    def mend(self, claim: ClaimRef, devices: Sequence[HeldDevice], machine: Callable[[], Machine]) -> Mended:
        """How its shares were fenced is not known any more. A namespace of theirs goes if there is one; limits of
        cgroups are cleared by themselves, as those of a claim that is prepared no more."""
        shares = (held for held in devices if held.prepared.share_id is not None and held.gpu_uuid)
        steps = tuple(_lost(claim, held).record() for held in shares if not held.admin_access)
        return Mended(tuple(devices), steps)


def _lost(claim: ClaimRef, held: HeldDevice) -> FenceShare:
    name, share = held.prepared.device_name, held.prepared.share_id or ""
    return FenceShare(claim.uid, name, share, held.gpu_uuid, "", SharingBackend.MPS_NAMESPACE, 0, 0, 0)


def _step(device: ClaimDevice, backend: SharingBackend) -> FenceShare:
    """Raises DeviceNotFound for a MIG device that has gone."""
    allocated, fraction, gpu = device.allocated, fraction_of(device.allocated), gpu_behind(device.place)
    config, uuid = settings_of(device.config), None if gpu is None else device_uuid(allocated.device, gpu)
    if fraction is None or gpu is None or uuid is None:
        raise DeviceNotFound(
            f"device {allocated.device} is not on GPU {device.place.gpu_uuid}, so no share of it can be fenced",
            hint="somebody has destroyed it; delete the pod, so that its claim is allocated anew",
        )
    return FenceShare(
        claim_uid=device.claim.uid,
        device=allocated.device,
        share_id=allocated.share_id or "",
        gpu_uuid=gpu.uuid,
        uuid=uuid,
        backend=backend,
        memory=fraction.memory,
        memory_limit=fraction.memory if config.memory_limit is None else in_bytes(config.memory_limit),
        compute=fraction.compute,
        low_priority=config.priority is ClientPriority.LOW,
    )
