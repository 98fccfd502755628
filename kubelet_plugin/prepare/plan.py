"""What has to be done for a claim, step by step, before any of it is done. Pure.

A :class:`Step` is a value that says what it does, how it is undone and how one sees that it is done; ``apply`` carries
it out through the runner of its kind. Steps are listed in the order in which they are done and are undone in reverse:
first those that change hardware (``mig.steps``), last the CDI file, so that no container can be started with a device
that is not ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Protocol

from dra_driver.cdi.names import CdiNames
from dra_driver.cdi.spec import ContainerEdits
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, HeldDevice, StepRecord
from kubelet_plugin.claims.model import ClaimRef, PreparedDevice
from kubelet_plugin.kinds.mig.hardware import MigNow
from kubelet_plugin.kinds.mig.owners import Owners
from kubelet_plugin.kinds.mig.planning import InTheWay, MigPlan, WantedDevice, making_steps, plan_mig
from kubelet_plugin.kinds.mig.steps import recorded_steps
from kubelet_plugin.prepare.admission import AdmittedClaim, AdmittedDevice
from kubelet_plugin.prepare.cdi_file import CdiDevice, MigPart, WriteCdiFile


class Step(Protocol):
    """One side effect."""

    @property
    def kind(self) -> str:
        """Chooses the runner; also in the checkpoint, so it never changes."""
        ...

    @property
    def has_result(self) -> bool:
        """Whether doing it brings about what undoing it must know: then that is made durable before the next step."""
        ...

    def does(self) -> str: ...

    def undo_does(self) -> str: ...

    def done_when(self) -> str: ...

    def record(self) -> StepRecord:
        """What is written down before it is done: enough to undo it without anything else."""
        ...


@dataclass(frozen=True, slots=True)
class CdiFacts:
    """What a plan has to know of the node to fill the CDI file."""

    names: CdiNames
    common: ContainerEdits
    devices: Mapping[str, ContainerEdits] = field(hash=False)  # by device name


@dataclass(frozen=True, slots=True)
class Plan:
    """``entry`` is the claim's record once everything is done; its ``steps`` are the records of ``steps``.

    ``undo_first`` is what an earlier attempt, allocation or boot may have left; ``removals`` are instances that no
    claim made and the administrator gives away. ``repeats``: the claim is prepared already, so only steps that are
    found not done are done again, and its record changes only if that brings about something else.
    """

    entry: ClaimEntry
    steps: tuple[Step, ...]
    undo_first: ClaimEntry | None = None
    removals: tuple[InTheWay, ...] = ()
    repeats: bool = False

    @property
    def ref(self) -> ClaimRef:
        return self.entry.ref

    def explain(self) -> tuple[str, ...]:
        """One line for each step, for people."""
        first = (f"undo what is left of an earlier prepare ({self.undo_first.state})",) if self.undo_first else ()
        removals = (f"{removal.does()}; not undone" for removal in self.removals)
        steps = (f"{step.does()}; done when {step.done_when()}; undone by: {step.undo_does()}" for step in self.steps)
        return (*first, *removals, *steps)


class Standing(Enum):
    """What is left of a claim on this node when it is to be prepared."""

    NEW = auto()  # nothing
    PREPARED = auto()  # it is prepared, with these very devices
    UNRECORDED = auto()  # the same, but its record was damaged and says little
    STALE = auto()  # something of an earlier attempt, allocation or boot, which has to be undone first


def standing(admitted: AdmittedClaim, names: CdiNames, boot_id: str) -> Standing:
    before = admitted.before
    if before is None:
        return Standing.NEW
    if before.state is ClaimState.RECORD_LOST and before.boot_id == boot_id:
        asked = {(device.allocated.device, device.allocated.share_id) for device in admitted.devices}
        known = {(answer.device_name, answer.share_id) for answer in before.answers}
        return Standing.UNRECORDED if not known or known == asked else Standing.STALE
    if is_prepared(before, boot_id) and before.devices == _held_devices(admitted, names):
        return Standing.PREPARED
    return Standing.STALE


def plan_prepare(
    admitted: AdmittedClaim, facts: CdiFacts, boot_id: str, now: Mapping[str, MigNow], owners: Owners
) -> Plan:
    """The plan for an admitted claim; one that is :attr:`Standing.STALE` has been undone.

    ``now``: MIG of the GPUs of :func:`gpus_to_look_at`, by UUID. ``owners``: the other claims' instances.
    Raises ``HardwareError`` or ``DeviceNotFound`` where the hardware is not as the claim needs it.
    """
    ref, before, left = admitted.claim.ref, admitted.before, standing(admitted, facts.names, boot_id)
    cdi = _cdi_step(ref.uid, admitted.devices, facts)
    if left is Standing.PREPARED and before is not None:
        # As recorded and not as the policy is now: what was made for the claim is the claim's until it ends.
        # The name may be new: of a claim that another driver prepared, the record may have none.
        return Plan(replace(before, ref=ref), (*recorded_steps(before.steps), cdi), repeats=True)
    wanted = _wanted(admitted)
    mig = MigPlan(making_steps(wanted)) if left is Standing.UNRECORDED else plan_mig(wanted, now, owners)
    steps: tuple[Step, ...] = (*mig.steps, cdi)
    entry = ClaimEntry(
        ref=ref,
        state=ClaimState.COMPLETED,
        boot_id=boot_id,
        devices=_held_devices(admitted, facts.names),
        steps=tuple(step.record() for step in steps),
    )
    undone = before if left is Standing.STALE else None
    return Plan(entry, steps, undone, mig.removals, repeats=left is Standing.UNRECORDED)


def gpus_to_look_at(admitted: AdmittedClaim, left: Standing) -> frozenset[str]:
    """UUIDs of the GPUs whose MIG state a plan depends on: none when the claim is prepared already."""
    if left in (Standing.PREPARED, Standing.UNRECORDED):
        return frozenset()
    return frozenset(device.gpu.uuid for device in _wanted(admitted) if device.needs_look)


def is_prepared(entry: ClaimEntry | None, boot_id: str) -> bool:
    """Whether the claim is ready for containers: a reboot empties the CDI folder and resets hardware."""
    return entry is not None and entry.state is ClaimState.COMPLETED and entry.boot_id == boot_id


def _wanted(admitted: AdmittedClaim) -> tuple[WantedDevice, ...]:
    return tuple(
        WantedDevice(device.allocated.device, device.gpu, device.place, device.policy, device.allocated.admin_access)
        for device in admitted.devices
    )


def _held_devices(admitted: AdmittedClaim, names: CdiNames) -> tuple[HeldDevice, ...]:
    return tuple(_held(admitted.claim.ref.uid, device, names) for device in admitted.devices)


def _held(claim_uid: str, device: AdmittedDevice, names: CdiNames) -> HeldDevice:
    allocated = device.allocated
    return HeldDevice(
        answer=PreparedDevice(
            request_names=(allocated.parent_request,),
            pool_name=allocated.pool,
            device_name=allocated.device,
            cdi_device_ids=(names.device_id(claim_uid, allocated.device, allocated.share_id),),
            share_id=allocated.share_id,
        ),
        gpu_uuid=device.gpu.uuid,
        admin_access=allocated.admin_access,
    )


def _cdi_step(claim_uid: str, devices: tuple[AdmittedDevice, ...], facts: CdiFacts) -> WriteCdiFile:
    """One CDI device for each device and share, also when several requests were given the same one."""
    named = {
        facts.names.device_name(claim_uid, device.allocated.device, device.allocated.share_id): device
        for device in devices
    }
    entries = tuple(
        CdiDevice(
            name,
            facts.devices[device.allocated.device],
            None if device.place is None else MigPart(device.place, device.gpu.minor),
        )
        for name, device in named.items()
    )
    return WriteCdiFile(claim_uid, facts.names.file_name(claim_uid), facts.names.kind, entries, facts.common)
