"""Does and undoes the step of a group. Nothing is remembered: the supervisor knows what runs, NVML what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dra_driver.errors import DeviceNotFound, HardwareError, StateError
from dra_driver.mps.group import RECORD, GroupState, GroupStatus, MpsGroup, groups_folder
from kubelet_plugin.claims.entry import StepRecord
from kubelet_plugin.hardware.mig import MigHardware
from kubelet_plugin.kinds.mps.member import Member
from kubelet_plugin.kinds.mps.step import GroupUp, group_in, groups_of_claim
from kubelet_plugin.kinds.mps.supervisor import Supervisor
from kubelet_plugin.prepare.kind import StepRunner

# In a wedged one there may be clients; it is recycled when they have gone.
_UP = (GroupState.READY, GroupState.WEDGED)


class GroupRunner(StepRunner):
    """``plugin_folder``: below it are the groups' folders."""

    do_needs_intent = True
    undo_needs_intent = True  # or a restart between stop and the record's end would start it once more
    survives_reboot = False

    def __init__(self, supervisor: Supervisor, hardware: MigHardware, plugin_folder: Path) -> None:
        self._supervisor = supervisor
        self._hardware = hardware
        self._plugin_folder = plugin_folder

    def observe(self, step: GroupUp, done: Sequence[StepRecord]) -> Mapping[str, str] | None:
        if not step.members:
            return {}
        running = self._running(step.group)
        same = running is not None and running.group.devices == self._resolved(step).devices
        return {} if running is not None and same and running.state in _UP else None

    def do(self, step: GroupUp, done: Sequence[StepRecord]) -> Mapping[str, str]:
        group, running = self._resolved(step), self._running(step.group)
        if running is not None and running.group.devices != group.devices:
            # MIG devices were made anew: what runs is of devices that are no more.
            self._supervisor.stop(step.group)
        status = self._supervisor.start(group)
        if status.state is not GroupState.READY:
            raise not_usable(status)
        return {}

    def undo(self, claim_uid: str, record: StepRecord) -> None:
        group = group_in(record)
        try:
            for each in self._of_claim(claim_uid) if group is None else (group,):
                self._supervisor.stop(each)
        except HardwareError:
            # Where the supervisor has no record of it, nothing is left, and there is nothing to wait for. A folder
            # without one is of NVIDIA's driver, which has the same layout.
            if self._has_left(groups_of_claim(claim_uid) + "*" if group is None else group):
                raise

    def _of_claim(self, claim_uid: str) -> tuple[str, ...]:
        begin = groups_of_claim(claim_uid)
        return tuple(each.group.id for each in self._supervisor.groups() if each.group.id.startswith(begin))

    def _has_left(self, pattern: str) -> bool:
        return any(groups_folder(self._plugin_folder).glob(f"{pattern}/{RECORD}"))

    def _running(self, group: str) -> GroupStatus | None:
        return next((each for each in self._supervisor.groups() if each.group.id == group), None)

    def _resolved(self, step: GroupUp) -> MpsGroup:
        try:
            return step.resolved({member: self._uuid(member) for member in step.members})
        except KeyError as error:
            raise StateError(
                f"MPS group {step.group} has a memory limit for {error}, which is not one of its devices",
                hint="delete the pod, so that its claim is unprepared and allocated anew",
            ) from error

    def _uuid(self, member: Member) -> str:
        instances = () if member.mig is None else self._hardware.instances(member.gpu_uuid)
        uuid = member.uuid(instances)
        if uuid is None:
            raise DeviceNotFound(
                f"MIG device {member.device} is not on GPU {member.gpu_uuid}, so no MPS daemon can serve it",
                hint="somebody has destroyed it; delete the pod, so that its claim is unprepared and allocated anew",
            )
        return uuid


def not_usable(status: GroupStatus) -> HardwareError:
    return HardwareError(
        f"MPS group {status.group.id} is {status.state.lower()}: {status.message or 'its daemon does not serve'}",
        hint="it is recycled when its last client has ended; the kubelet tries again by itself",
    )
