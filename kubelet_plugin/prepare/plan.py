"""What has to be done for a claim, step by step, before any of it is done. Pure.

A step is a value that says what it does, how it is undone and how one sees that it is done; ``apply`` carries it out
through the runner of its kind. Each is paired with its own record. Steps are listed in the order in which they are done
and are undone in reverse: first those that change hardware, last the CDI file, so that no container can be started with
a device that is not ready.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

from dra_driver.cdi.names import CdiNames
from dra_driver.cdi.spec import ContainerEdits
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, HeldDevice, StepRecord
from kubelet_plugin.claims.model import ClaimRef, PreparedDevice
from kubelet_plugin.prepare.admission import AdmittedClaim
from kubelet_plugin.prepare.cdi_file import CDI_FILE, CdiDevice, WriteCdiFile
from kubelet_plugin.prepare.kind import ClaimDevice, Maker, MakerPlan, Removal, Step
from kubelet_plugin.prepare.kinds import Kinds


@dataclass(frozen=True, slots=True)
class CdiFacts:
    """What a plan has to know of the node to fill the CDI file."""

    names: CdiNames
    common: ContainerEdits
    devices: Mapping[str, ContainerEdits] = field(hash=False)  # by device name


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step and its record, with the result it had where it was done before."""

    step: Step
    record: StepRecord


@dataclass(frozen=True, slots=True)
class PlannedRemoval:
    """Something in the way, and whose plan it stands in."""

    maker: Maker
    removal: Removal


@dataclass(frozen=True, slots=True)
class Plan:
    """``entry`` is the claim's record once everything is done, with the records of ``steps`` as they are planned.

    ``undo_first`` is what an earlier attempt, allocation or boot may have left; ``removals`` are what no claim made and
    the administrator gives away. ``repeats``: the claim is prepared already, so only steps that are found not done are
    done again, and its record changes only if that brings about something else.
    """

    entry: ClaimEntry
    steps: tuple[PlannedStep, ...]
    undo_first: ClaimEntry | None = None
    removals: tuple[PlannedRemoval, ...] = ()
    repeats: bool = False

    @property
    def ref(self) -> ClaimRef:
        return self.entry.ref

    def explain(self) -> tuple[str, ...]:
        """One line for each step, for people."""
        first = (f"undo what is left of an earlier prepare ({self.undo_first.state})",) if self.undo_first else ()
        removals = (f"{planned.removal.does()}; not undone" for planned in self.removals)
        steps = (planned.step for planned in self.steps)
        lines = (f"{step.does()}; done when {step.done_when()}; undone by: {step.undo_does()}" for step in steps)
        return (*first, *removals, *lines)


class Standing(Enum):
    """What is left of a claim on this node when it is to be prepared."""

    NEW = auto()  # nothing
    PREPARED = auto()  # it is prepared, with these very devices
    UNRECORDED = auto()  # the same, but its record was damaged and says little
    STALE = auto()  # something of an earlier attempt, allocation or boot, which has to be undone first


@dataclass(frozen=True, slots=True)
class Work:
    """A maker and the devices of a claim that it makes steps for."""

    maker: Maker
    devices: tuple[ClaimDevice, ...]


def standing(admitted: AdmittedClaim, names: CdiNames, boot_id: str) -> Standing:
    before = admitted.before
    if before is None:
        return Standing.NEW
    if before.state is ClaimState.RECORD_LOST and before.boot_id == boot_id:
        known = before.device_keys
        return Standing.UNRECORDED if not known or known == admitted.claim.device_keys else Standing.STALE
    if before.is_prepared(boot_id) and before.devices == _held_devices(admitted, names):
        return Standing.PREPARED
    return Standing.STALE


def works(admitted: AdmittedClaim, kinds: Kinds) -> tuple[Work, ...]:
    """Who has something to do for the claim, in the order of its steps."""
    of_makers = ((maker, _devices_of(maker, admitted.devices)) for maker in kinds.makers)
    return tuple(Work(maker, devices) for maker, devices in of_makers if devices)


def plan_new(admitted: AdmittedClaim, facts: CdiFacts, boot_id: str, seen: Sequence[tuple[Work, Any]]) -> Plan:
    """For a claim of which nothing is left. ``seen``: what each maker of :func:`works` saw on the node.

    Raises ``DriverError`` where the hardware is not as the claim needs it.
    """
    plans = [(work.maker, work.maker.plan(work.devices, answer, admitted.others)) for work, answer in seen]
    removals = (PlannedRemoval(maker, removal) for maker, plan in plans for removal in plan.removals)
    plan = _whole(admitted, facts, boot_id, [plan for _maker, plan in plans])
    return replace(plan, removals=tuple(removals))


def plan_unrecorded(admitted: AdmittedClaim, facts: CdiFacts, boot_id: str, todo: Sequence[Work]) -> Plan:
    """For a claim that is prepared and whose record was lost: what is there is found, the rest is done."""
    plans = [MakerPlan(work.maker.making_steps(work.devices)) for work in todo]
    return replace(_whole(admitted, facts, boot_id, plans), repeats=True)


def plan_again(admitted: AdmittedClaim, facts: CdiFacts, before: ClaimEntry, kinds: Kinds) -> Plan:
    """For a claim that is prepared: what its record says, and not what the policy says now. What was made for the claim
    is the claim's until it ends. Raises ``StateError`` for a record of an unknown kind."""
    file = _cdi_step(admitted, facts)
    steps = tuple(
        PlannedStep(file if record.kind == CDI_FILE else kinds.again(record), record) for record in before.steps
    )
    # The name may be new: of a claim that another driver prepared, the record may have none.
    return Plan(replace(before, ref=admitted.claim.ref), steps, repeats=True)


def _devices_of(maker: Maker, devices: Sequence[ClaimDevice]) -> tuple[ClaimDevice, ...]:
    return tuple(device for device in devices if maker is device.kind or maker in device.wrappers)


def _whole(admitted: AdmittedClaim, facts: CdiFacts, boot_id: str, plans: Sequence[MakerPlan]) -> Plan:
    made = (step for plan in plans for step in plan.steps)
    steps = tuple(PlannedStep(step, step.record()) for step in (*made, _cdi_step(admitted, facts)))
    entry = ClaimEntry(
        ref=admitted.claim.ref,
        state=ClaimState.COMPLETED,
        boot_id=boot_id,
        devices=_held_devices(admitted, facts.names),
        steps=tuple(planned.record for planned in steps),
    )
    return Plan(entry, steps)


def _held_devices(admitted: AdmittedClaim, names: CdiNames) -> tuple[HeldDevice, ...]:
    return tuple(_held(admitted.claim.ref.uid, device, names) for device in admitted.devices)


def _held(claim_uid: str, device: ClaimDevice, names: CdiNames) -> HeldDevice:
    allocated = device.allocated
    return HeldDevice(
        prepared=PreparedDevice(
            request_names=(allocated.parent_request,),
            pool_name=allocated.pool,
            device_name=allocated.device,
            cdi_device_ids=(names.device_id(claim_uid, allocated.device, allocated.share_id),),
            share_id=allocated.share_id,
        ),
        gpu_uuid=device.place.gpu_uuid,
        admin_access=allocated.admin_access,
    )


def _cdi_step(admitted: AdmittedClaim, facts: CdiFacts) -> WriteCdiFile:
    """One CDI device for each device and share, also when several requests were given the same one."""
    uid = admitted.claim.ref.uid
    named = {
        facts.names.device_name(uid, device.allocated.device, device.allocated.share_id): device
        for device in admitted.devices
    }
    entries = tuple(CdiDevice(name, facts.devices[device.allocated.device], device) for name, device in named.items())
    return WriteCdiFile(uid, facts.names.file_name(uid), facts.names.kind, entries, facts.common)
