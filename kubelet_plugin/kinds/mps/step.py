"""The step that has a group up, as a value, and its record. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from dra_driver.mps.group import LEGACY, MpsGroup
from kubelet_plugin.claims.entry import StepRecord
from kubelet_plugin.kinds.gpus import place_word
from kubelet_plugin.kinds.mps.member import Member
from kubelet_plugin.kinds.mps.settings import Settings

MPS_GROUP: Final = "MpsGroup"

_GROUP, _DEVICES, _PROTOCOL = "group", "devices", "protocol"
_REPLICAS: Final = "replicas-"


@dataclass(frozen=True, slots=True)
class GroupUp:
    """``members`` are sorted. Without any, the record was lost: whatever group is there is the claim's, and goes with
    it."""

    group: str
    members: tuple[Member, ...]
    settings: Settings
    protocol: int = LEGACY

    kind = MPS_GROUP

    def does(self) -> str:
        return f"start MPS group {self.group} for {', '.join(member.device for member in self.members)}"

    def undo_does(self) -> str:
        return "stop the group, once no other claim is in it"

    def done_when(self) -> str:
        return "the supervisor lists it with the same devices"

    def record(self) -> StepRecord:
        known = {_GROUP: self.group, _DEVICES: " ".join(map(str, self.members)), **self.settings.to_arguments()}
        if self.protocol != LEGACY:
            known[_PROTOCOL] = str(self.protocol)
        return StepRecord(self.kind, {name: value for name, value in known.items() if value})

    def resolved(self, uuid_of: dict[Member, str]) -> MpsGroup:
        """The group, with the UUIDs that its devices have now. KeyError for a limit of a device that is not among
        them."""
        uuids = tuple(sorted(uuid_of[member] for member in self.members))
        return MpsGroup(
            id=self.group,
            devices=uuids,
            exclusive_gpus=tuple(sorted(member.gpu_uuid for member in self.members if member.mig is None)),
            active_thread_percentage=self.settings.active_thread_percentage,
            pinned_memory_mib=self.settings.by_uuid(uuids),
            multi_user=self.settings.multi_user,
            protocol=self.protocol,
        )


def recorded_step(record: StepRecord) -> GroupUp:
    """Raises ValueError for a record that this step did not write."""
    arguments = record.arguments
    members = tuple(map(Member.parse, arguments.get(_DEVICES, "").split()))
    protocol = int(arguments.get(_PROTOCOL, LEGACY))
    return GroupUp(arguments.get(_GROUP, ""), members, Settings.from_arguments(arguments), protocol)


def claim_group(claim_uid: str, members: Iterable[Member]) -> str:
    """The id that NVIDIA's driver gives (cmd/gpu-kubelet-plugin/sharing.go): claim, and a hash of the UUIDs. A MIG
    device counts by its GPU and its name, which are the same when it is made anew."""
    text = ",".join(sorted(member.word for member in members))
    return f"{groups_of_claim(claim_uid)}{hashlib.sha256(text.encode()).hexdigest()[:5]}"


def groups_of_claim(claim_uid: str) -> str:
    """How the ids of all groups begin that are the claim's own."""
    return f"{claim_uid}-"


def replicas_group(member: Member) -> str:
    """The group of all replicas of a device."""
    return f"{_REPLICAS}{place_word(member.gpu_uuid, member.device)}"


def lost_group(group: str = "") -> GroupUp:
    """The step of a record that was lost, to stop ``group``, or all groups of the claim's own."""
    return GroupUp(group, (), Settings())


def group_in(record: StepRecord) -> str | None:
    """The id of the group that a step of any kind has up; None for one of another kind, or where it is not known."""
    return record.arguments.get(_GROUP) if record.kind == MPS_GROUP else None


def groups_in(records: Iterable[StepRecord]) -> Iterator[GroupUp]:
    """The groups that steps of a claim have up, as far as their records tell."""
    steps = (recorded_step(each) for each in records if each.kind == MPS_GROUP)
    return (step for step in steps if step.members)


def step_with(member: Member, records: Iterable[StepRecord]) -> GroupUp | None:
    """The group through which a claim with these steps uses one of its devices; None where it does without."""
    return next((step for step in groups_in(records) if member in step.members), None)


def group_with(member: Member, records: Iterable[StepRecord]) -> str | None:
    """Its id."""
    step = step_with(member, records)
    return None if step is None else step.group
