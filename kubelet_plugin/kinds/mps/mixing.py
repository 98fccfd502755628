"""What cannot be had beside what: the table of ``docs/dev/sharing-modes.md``, as far as MPS is concerned. Pure.

All holders of one device are alike: either all use it through the same MPS group, or none does. On a whole GPU that is
hardware: its compute mode is EXCLUSIVE_PROCESS while an MPS daemon has it, so whoever comes without is locked out, and
whoever is there keeps the daemon out (NVIDIA MPS documentation, "Compute Modes").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from api.claim_config import ClaimConfig, GpuConfig, MigDeviceConfig, SharingStrategy
from dra_driver.devices.sharing import Replicas
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState
from kubelet_plugin.kinds.mps.member import Member, member_held, member_of
from kubelet_plugin.kinds.mps.step import group_with
from kubelet_plugin.prepare.kind import ClaimDevice, Refusal

STRATEGY = "sharing.strategy"


def strategy_of(config: ClaimConfig) -> SharingStrategy | None:
    asked = config.sharing if isinstance(config, GpuConfig | MigDeviceConfig) else None
    return None if asked is None else asked.strategy


def refused_on_a_share(device: ClaimDevice, replicas: Replicas | None) -> Refusal | None:
    """A share is used as its device is offered. ``replicas``: how that is, where it is offered as MPS replicas."""
    asked = strategy_of(device.config)
    if not device.allocated.is_share or asked is None:
        return None
    if replicas is not None:
        why = (
            f"{asked} cannot be asked for on {device.allocated.device}, which is offered as {replicas.count} MPS "
            "replicas, whose settings are the administrator's"
        )
        return Refusal(STRATEGY, asked, "remove sharing", why=why)
    if asked is SharingStrategy.MPS:
        why = (
            f"MPS cannot be asked for on {device.allocated.device}, of which claim {device.claim} has a share: it is "
            "not offered as MPS replicas, so others may use it without MPS"
        )
        advice = "ask for a whole device, or have the administrator offer MPS replicas"
        return Refusal(STRATEGY, asked, advice, why=why)
    return None


def refused_beside(
    device: ClaimDevice, group: str | None, beside: Iterable[tuple[ClaimDevice, str | None]]
) -> Refusal | None:
    """Beside other devices of the claim, with their groups. A container has one ``/tmp/nvidia-mps``: of two groups it
    would reach only the one whose mount comes last (the CDI library replaces a mount at the same place)."""
    for other, theirs in beside:
        if group is not None and theirs not in (None, group):
            why = (
                f"claim {device.claim} asks for two MPS groups, for {other.allocated.device} (request "
                f"{other.allocated.request}) and for {device.allocated.device} (request {device.allocated.request}), "
                "and a container reaches one"
            )
            advice = "give both the same MPS settings, or ask for them in two claims, each for containers of its own"
            return Refusal(STRATEGY, SharingStrategy.MPS, advice, why=why)
    return None


def refused_beside_others(device: ClaimDevice, group: str | None, others: Sequence[ClaimEntry]) -> Refusal | None:
    """Beside other claims that hold the same device. What a lost record held it through is not known."""
    mine = member_of(device)
    for entry in others:
        if entry.state is not ClaimState.RECORD_LOST and _holds(entry, mine):
            theirs = group_with(mine, entry.steps)
            if theirs != group:
                return _conflict(device, group, entry, theirs)
    return None


def _holds(entry: ClaimEntry, member: Member) -> bool:
    return any(not held.admin_access and member_held(held) == member for held in entry.devices)


def _conflict(device: ClaimDevice, group: str | None, entry: ClaimEntry, theirs: str | None) -> Refusal:
    name, asked = device.allocated.device, strategy_of(device.config)
    their_way = "without MPS" if theirs is None else f"through MPS group {theirs}"
    my_way = "without MPS" if group is None else f"through MPS group {group}"
    advice = (
        f"claim {entry.holder} uses {name} {their_way}, and claim {device.claim} would use it {my_way}: wait until "
        f"claim {entry.holder} has ended, or ask for a device of another GPU"
    )
    if device.allocated.is_share and asked is None:  # nothing was said of a strategy
        return Refusal("requests", f"a share of {name}", advice, holder=entry.holder)
    value = asked or (SharingStrategy.MPS if group is not None else "none")
    return Refusal(STRATEGY, value, advice, holder=entry.holder)
