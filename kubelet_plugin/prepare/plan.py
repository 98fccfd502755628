"""What has to be done for a claim, step by step, before any of it is done. Pure.

A :class:`Step` is a value that says what it does, how it is undone and how one sees that it is done; ``apply`` carries
it out through the runner of its kind. Steps are listed in the order in which they are done and are undone in reverse.
Today a claim has one step, its CDI file; steps that change hardware come before it, so that no container can be
started with a device that is not ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dra_driver.cdi.names import CdiNames
from dra_driver.cdi.spec import ContainerEdits, Device, Spec
from kubelet_plugin.prepare.admission import AdmittedClaim, AdmittedDevice
from kubelet_plugin.prepare.entry import ClaimEntry, ClaimState, HeldDevice, StepRecord
from kubelet_plugin.prepare.model import ClaimRef, PreparedDevice

CDI_FILE = "CDIFile"


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
class WriteCdiFile:
    """The claim's CDI file: the containers of its pods are made from it."""

    claim_uid: str
    file_name: str
    spec: Spec

    kind = CDI_FILE
    has_result = False

    def does(self) -> str:
        devices = ", ".join(device.name for device in self.spec.devices)
        return f"write CDI file {self.file_name} with {devices}"

    def undo_does(self) -> str:
        return f"remove CDI file {self.file_name}"

    def done_when(self) -> str:
        return f"{self.file_name} is there with exactly this content"

    def record(self) -> StepRecord:
        return StepRecord(self.kind)


@dataclass(frozen=True, slots=True)
class CdiFacts:
    """What a plan has to know of the node to fill the CDI file."""

    names: CdiNames
    common: ContainerEdits
    devices: Mapping[str, ContainerEdits] = field(hash=False)  # by device name


@dataclass(frozen=True, slots=True)
class Plan:
    """``entry`` is the claim's record once everything is done.

    ``undo_first`` is what an earlier attempt, allocation or boot may have left. ``repeats``: the claim is prepared, its
    record stays, and only steps that are found not done are done again.
    """

    entry: ClaimEntry
    steps: tuple[Step, ...]
    undo_first: ClaimEntry | None = None
    repeats: bool = False

    @property
    def ref(self) -> ClaimRef:
        return self.entry.ref

    def explain(self) -> tuple[str, ...]:
        """One line for each step, for people."""
        first = (f"undo what is left of an earlier prepare ({self.undo_first.state})",) if self.undo_first else ()
        steps = (f"{step.does()}; done when {step.done_when()}; undone by: {step.undo_does()}" for step in self.steps)
        return (*first, *steps)


def plan_prepare(admitted: AdmittedClaim, facts: CdiFacts, boot_id: str) -> Plan:
    """The plan for an admitted claim."""
    ref = admitted.claim.ref
    steps: tuple[Step, ...] = (
        WriteCdiFile(ref.uid, facts.names.file_name(ref.uid), _cdi_spec(ref.uid, admitted.devices, facts)),
    )
    entry = ClaimEntry(
        ref=ref,
        state=ClaimState.COMPLETED,
        boot_id=boot_id,
        devices=tuple(_held(ref.uid, device, facts.names) for device in admitted.devices),
        steps=tuple(step.record() for step in steps),
    )
    before = admitted.before
    if before is None or before.state is ClaimState.RECORD_LOST:
        return Plan(entry, steps)
    if is_prepared(before, boot_id) and before.devices == entry.devices:
        return Plan(before, steps, repeats=True)
    return Plan(entry, steps, undo_first=before)


def is_prepared(entry: ClaimEntry | None, boot_id: str) -> bool:
    """Whether the claim is ready for containers: a reboot empties the CDI folder and resets hardware."""
    return entry is not None and entry.state is ClaimState.COMPLETED and entry.boot_id == boot_id


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


def _cdi_spec(claim_uid: str, devices: tuple[AdmittedDevice, ...], facts: CdiFacts) -> Spec:
    """One CDI device for each device and share, also when several requests were given the same one."""
    edits = {
        facts.names.device_name(claim_uid, device.allocated.device, device.allocated.share_id): facts.devices[
            device.allocated.device
        ]
        for device in devices
    }
    return Spec(facts.names.kind, tuple(Device(name, edit) for name, edit in edits.items()), facts.common)
