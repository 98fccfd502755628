"""Brings one GPU to its named layout: looks at the hardware, plans, does what is missing. No state, no threads.

The layout is the administrator's word about all instances of such a GPU, so what does not fit it is destroyed, whoever
made it. What fits stays as it is. Everything is decided from what the hardware has at this moment, so a pass that was
interrupted anywhere is completed by the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from api.mig_layouts import LayoutEntry
from api.mig_policy import MigSettings
from dra_driver.devices.mig_layout import LayoutPlan, LayoutRefusal, count_text, entry_for, plan_layout
from dra_driver.devices.naming import gpu_name, minor_of
from dra_driver.devices.policy import toggles_without_reset
from dra_driver.errors import HardwareError
from dra_driver.hardware.model import Gpu, Machine
from kubelet_plugin.claims.entry import ClaimEntry
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.hardware.mig import MigHardware, MigNow, describe, destroy, look

logger = logging.getLogger(__name__)

_CLAIMS_NAMED = 6


class LayoutState(StrEnum):
    """How a GPU stands to its layout; the value is the reason of the condition."""

    APPLIED = "Applied"
    NO_ENTRY = "NoEntry"  # the layout says nothing about this GPU, which is left as it is
    WAITING = "WaitingForClaims"
    NEEDS_RESET = "NeedsReset"
    REFUSED = "DoesNotFit"
    FAILED = "Failed"

    @property
    def settled(self) -> bool:
        """Whether there is nothing left to do."""
        return self in (LayoutState.APPLIED, LayoutState.NO_ENTRY)


@dataclass(frozen=True, slots=True)
class LayoutOutcome:
    """What became of one GPU. ``changed``: the hardware is not what it was before."""

    gpu: str  # "gpu-0"
    layout: str
    state: LayoutState
    message: str = ""
    changed: bool = False

    def __str__(self) -> str:
        return f"{self.gpu}: layout {self.layout}: {self.message or 'applied'}"


@dataclass(frozen=True, slots=True)
class GpuLayout:
    """A GPU and the layout that a rule asks for; ``entry`` is what that says about it, None for nothing."""

    gpu: Gpu
    name: str
    entry: LayoutEntry | None


def asked_layouts(machine: Machine, policy: NodePolicy, settings: MigSettings) -> tuple[GpuLayout, ...]:
    """The GPUs of ``machine`` for which rules ask for a layout."""
    asked = ((gpu, policy.mig(gpu).layout) for gpu in machine.gpus if gpu.mig is not None)
    return tuple(GpuLayout(gpu, name, entry_for(settings.layout(name), gpu)) for gpu, name in asked if name)


def holders(gpu: Gpu, entries: Mapping[str, ClaimEntry], boot_id: str) -> tuple[str, ...]:
    """Claims with a device of ``gpu``, other than by admin access; a damaged record counts by its device's name."""
    return tuple(sorted(entry.title for entry in entries.values() if entry.boot_id == boot_id and _holds(entry, gpu)))


def _holds(entry: ClaimEntry, gpu: Gpu) -> bool:
    for held in entry.devices:
        if held.admin_access:
            continue
        may_be = not held.gpu_uuid and minor_of(held.prepared.device_name) in (None, gpu.minor)
        if may_be or held.gpu_uuid == gpu.uuid:
            return True
    return False


def bring_about(asked: GpuLayout, hardware: MigHardware, claims: Sequence[str]) -> LayoutOutcome:
    """One pass over one GPU, under its lock. ``claims`` hold it: then nothing is changed."""
    name = gpu_name(asked.gpu.minor)

    def outcome(state: LayoutState, message: str = "", *, changed: bool = False) -> LayoutOutcome:
        return LayoutOutcome(name, asked.name, state, message, changed)

    entry, gpu = asked.entry, asked.gpu
    if entry is None:
        return outcome(LayoutState.NO_ENTRY, f"it has no entry for this GPU ({_identity(gpu)}), which is left as it is")
    try:
        now = look(hardware, gpu.uuid)
        plan = _plan(gpu, now, entry)
        if isinstance(plan, LayoutRefusal):
            return outcome(LayoutState.REFUSED, plan.message)
        toggle = now.enabled != entry.mig_enabled
        if not toggle and plan is not None and plan.done:
            return outcome(LayoutState.APPLIED)
        if toggle and not toggles_without_reset(gpu):
            return outcome(LayoutState.NEEDS_RESET, _needs_reset(gpu, entry, claims))
        if claims:
            return outcome(LayoutState.WAITING, f"waits for {_named(claims)} on it to end")
        _change(asked, hardware, now, entry, plan)
    except HardwareError as error:
        return outcome(LayoutState.FAILED, str(error), changed=True)
    if plan is None:
        return outcome(LayoutState.FAILED, "MIG mode is on now, and the profiles are read next", changed=True)
    return outcome(LayoutState.APPLIED, changed=True)


def _plan(gpu: Gpu, now: MigNow, entry: LayoutEntry) -> LayoutPlan | LayoutRefusal | None:
    """None: the driver lists no profiles while MIG mode is off (up to 535), so there is nothing to plan with yet."""
    if not entry.mig_enabled:
        return LayoutPlan(remove=now.instances)
    if gpu.mig is None or (not gpu.mig.profiles and not now.enabled):
        return None
    current = replace(gpu, mig=replace(gpu.mig, enabled=now.enabled, pending=now.enabled, instances=now.instances))
    return plan_layout(current, entry.wanted)


def _change(asked: GpuLayout, hardware: MigHardware, now: MigNow, entry: LayoutEntry, plan: LayoutPlan | None) -> None:
    """Taking away first, then mode, then making. Each step is one that a later pass finds done or not done."""
    uuid = asked.gpu.uuid
    wanted = count_text(entry.wanted) if entry.mig_enabled else "MIG mode off"
    logger.info("applying MIG layout %s", asked.name, extra={"gpu": uuid, "wanted": wanted})
    if plan is not None:
        _take_away(uuid, hardware, plan)
    if now.enabled != entry.mig_enabled:
        hardware.set_mode(uuid, entry.mig_enabled)
    if plan is not None:
        _make(uuid, hardware, plan)
    logger.info("MIG layout %s is applied" if plan else "MIG mode is on for layout %s", asked.name, extra={"gpu": uuid})


def _take_away(uuid: str, hardware: MigHardware, plan: LayoutPlan) -> None:
    for instance in plan.remove:
        logger.info("destroying what the layout does not have: %s", describe(instance), extra={"gpu": uuid})
        destroy(hardware, uuid, instance)
    for kept in plan.keep:
        for compute in kept.remove:
            hardware.destroy_compute_instance(uuid, kept.instance.id, compute)


def _make(uuid: str, hardware: MigHardware, plan: LayoutPlan) -> None:
    for kept in plan.keep:
        for slices in kept.add:
            hardware.create_compute_instance(uuid, kept.instance.id, slices)
    for wanted in plan.create:
        made = hardware.create_gpu_instance(uuid, wanted.profile.id, wanted.placement)
        for slices in wanted.compute:
            hardware.create_compute_instance(uuid, made, slices)


def _needs_reset(gpu: Gpu, entry: LayoutEntry, claims: Sequence[str]) -> str:
    word = "on" if entry.mig_enabled else "off"
    who = f"{_named(claims)} run on it" if claims else "no claim runs on it"
    return (
        f"MIG mode must be switched {word}, which needs a reset of the GPU, and {who}; drain the node, "
        f"nvidia-smi -i {gpu.uuid} -mig {int(entry.mig_enabled)}, nvidia-smi -i {gpu.uuid} --gpu-reset"
    )


def _named(claims: Sequence[str]) -> str:
    more = len(claims) - _CLAIMS_NAMED
    listed = ", ".join(claims[:_CLAIMS_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"{'claim' if len(claims) == 1 else 'claims'} {listed}"


def _identity(gpu: Gpu) -> str:
    model = "PCI id unknown" if gpu.pci_device_id is None else f"PCI id {gpu.pci_device_id:#010x}"
    return f"index {gpu.index}, {model}"
