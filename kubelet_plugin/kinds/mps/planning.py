"""Which groups a claim needs. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from api.claim_config import SharingStrategy
from api.fractions import SharingBackend
from dra_driver.devices.naming import read_name
from dra_driver.devices.sharing import Replicas, SharingPolicy
from dra_driver.mps.group import LEGACY, NAMED
from kubelet_plugin.claims.entry import ClaimEntry
from kubelet_plugin.kinds.fractions import fractions_group
from kubelet_plugin.kinds.gpus import gpu_behind
from kubelet_plugin.kinds.mps.member import member_of, memory_mib
from kubelet_plugin.kinds.mps.settings import Settings, asked_mps
from kubelet_plugin.kinds.mps.step import GroupUp, claim_group, groups_in, replicas_group
from kubelet_plugin.kinds.sharing import sharing_of_name
from kubelet_plugin.prepare.kind import ClaimDevice


def mps_replicas(device: ClaimDevice, policy: SharingPolicy, node: str) -> Replicas | None:
    """How the device is offered, for a share of one that is offered as MPS replicas."""
    gpu = gpu_behind(device.place)
    if not device.allocated.is_share or gpu is None:
        return None
    sharing = sharing_of_name(read_name(device.allocated.device), gpu, policy, node)
    return sharing if isinstance(sharing, Replicas) and sharing.strategy is SharingStrategy.MPS else None


def group_step(
    device: ClaimDevice,
    claim: Sequence[ClaimDevice],
    replicas: Replicas | None,
    fraction: SharingBackend | None = None,
) -> GroupUp | None:
    """The group of ``device``, with all devices of it among those of the ``claim``; None for one without MPS.

    ``fraction``: which MPS fences it, for a fraction. Its limits are its own, so the group has none; and its holders
    may be of different users, whom MPS lets in one after the other unless it is told otherwise.
    """
    member, gpu = member_of(device), gpu_behind(device.place)
    if fraction is not None:
        protocol = NAMED if fraction is SharingBackend.MPS_NAMESPACE else LEGACY
        group = fractions_group(member.gpu_uuid, member.device)
        return GroupUp(group, (member,), Settings(multi_user=True), protocol)
    if replicas is not None and gpu is not None:
        settings = Settings.of_replicas(replicas.count, memory_mib(member, gpu))
        return GroupUp(replicas_group(member), (member,), settings)
    asked = asked_mps(device.config)
    if asked is None:
        return None
    members = tuple(sorted({member_of(other) for other in claim if other.config == device.config}))
    return GroupUp(claim_group(device.claim.uid, members), members, Settings.of_config(asked))


def joined(step: GroupUp, others: Sequence[ClaimEntry]) -> GroupUp:
    """The step as those have it who are in the group already: who comes later takes it as it runs, also when replicas
    are offered with other settings by now."""
    return next((theirs for entry in others for theirs in groups_in(entry.steps) if theirs.group == step.group), step)
