"""The wrapper: whose devices are used through MPS, what is refused, what containers see, what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from api.claim_config import ClaimConfig
from api.fractions import SharingBackend
from api.mig_policy import MigMode
from dra_driver.cdi.spec import ContainerEdits, Mount
from dra_driver.devices.sharing import Replicas
from dra_driver.hardware.model import Gpu, Machine
from dra_driver.mps.group import NAMED, GroupState, GroupStatus, folders_of
from kubelet_plugin.claims.entry import ClaimEntry, HeldDevice, StepRecord
from kubelet_plugin.claims.model import ClaimRef
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.hardware.mig import MigHardware
from kubelet_plugin.kinds.fractions import PIPE_ENV, PIPE_IN_CONTAINER, FractionFences, fractions_group
from kubelet_plugin.kinds.gpus import gpu_behind
from kubelet_plugin.kinds.mps.limits import MpsDevice, refused_settings
from kubelet_plugin.kinds.mps.member import Member, member_held, member_of
from kubelet_plugin.kinds.mps.mixing import refused_beside, refused_beside_others, refused_on_a_share
from kubelet_plugin.kinds.mps.planning import group_step, joined, mps_replicas
from kubelet_plugin.kinds.mps.runner import GroupRunner, not_usable
from kubelet_plugin.kinds.mps.settings import asked_mps
from kubelet_plugin.kinds.mps.states import GroupStates
from kubelet_plugin.kinds.mps.step import (
    MPS_GROUP,
    GroupUp,
    group_in,
    group_with,
    lost_group,
    recorded_step,
    replicas_group,
    step_with,
)
from kubelet_plugin.kinds.mps.supervisor import Supervisor
from kubelet_plugin.kinds.sharing import SharingInForce
from kubelet_plugin.prepare.kind import ClaimDevice, MakerPlan, Mended, Others, Refusal, StepRunner, Wrapper

# What containers see is the contract of NVIDIA's driver (cmd/gpu-kubelet-plugin/sharing.go, GetCDIContainerEdits).
_SHM_IN_CONTAINER = "/dev/shm"  # noqa: S108
_MOUNT_OPTIONS = ("rw", "nosuid", "nodev", "bind")
_BY_MPS = (SharingBackend.MPS_NAMESPACE, SharingBackend.MPS)


class Mps(Wrapper):
    """Around whole GPUs and MIG devices. ``states``: what is known of the groups without asking."""

    name = "mps"

    def __init__(
        self,
        supervisor: Supervisor,
        states: GroupStates,
        sharing: SharingInForce,
        hardware: MigHardware,
        policy: NodePolicy,
        plugin_folder: Path,
        fences: FractionFences,
    ) -> None:
        self._supervisor = supervisor
        self._states = states
        self._sharing = sharing
        self._policy = policy
        self._plugin_folder = plugin_folder
        self._fences = fences
        self._runner = GroupRunner(supervisor, hardware, plugin_folder)

    # -- what is wanted, and refused ----------------------------------------------------------------------------------

    def wraps(self, device: ClaimDevice) -> bool:
        return self.honours(device.config) or self._replicas(device) is not None or self._fraction(device) is not None

    def honours(self, config: ClaimConfig) -> bool:
        return asked_mps(config) is not None

    def refuses(self, device: ClaimDevice, beside: Sequence[ClaimDevice], others: Others) -> Refusal | None:
        claim = [device, *(other for other in beside if not other.allocated.admin_access)]
        groups = [(each, self._group(each, claim)) for each in claim]
        step = groups[0][1]
        group = None if step is None else step.group
        fraction = self._fraction(device) is not None
        # Two fractions in one claim are the matter of their fences.
        theirs = [
            (each, step.group if step else None)
            for each, step in groups[1:]
            if not fraction or self._fraction(each) is None
        ]
        return (
            (None if fraction else refused_on_a_share(device, self._replicas(device)))
            or refused_beside(device, group, theirs)
            or (None if step is None else self._refused_settings(step, claim, others.machine))
            or refused_beside_others(device, group, others.entries)
        )

    def _refused_settings(self, step: GroupUp, claim: Sequence[ClaimDevice], machine: Machine) -> Refusal | None:
        gpus = {member_of(device): gpu_behind(device.place) for device in claim}
        found = ((member, gpus.get(member)) for member in step.members)
        devices = [MpsDevice(member, gpu, self._uuid(member, gpu)) for member, gpu in found if gpu is not None]
        return refused_settings(step.settings, devices)

    def _uuid(self, member: Member, gpu: Gpu) -> str | None:
        """As far as it is known before the device is made."""
        made = member.mig is not None and self._policy.mig(gpu).mode is MigMode.DYNAMIC
        return None if made else member.uuid(gpu.mig.instances if gpu.mig else ())

    def _replicas(self, device: ClaimDevice) -> Replicas | None:
        return mps_replicas(device, self._sharing.current(), self._policy.node)

    def _fraction(self, device: ClaimDevice) -> SharingBackend | None:
        """Which MPS fences it; None for what is no fraction, or one without MPS."""
        return next((each for each in self._fences.fences(device) if each in _BY_MPS), None)

    def _group(self, device: ClaimDevice, claim: Sequence[ClaimDevice]) -> GroupUp | None:
        return group_step(device, claim, self._replicas(device), self._fraction(device))

    # -- steps --------------------------------------------------------------------------------------------------------

    def look(self, devices: Sequence[ClaimDevice]) -> Mapping[str, GroupStatus]:
        """The groups by id. Where no supervisor answers, the claim fails here, before anything is changed."""
        return {status.group.id: status for status in self._supervisor.groups()}

    def plan(self, devices: Sequence[ClaimDevice], seen: Mapping[str, GroupStatus], others: Others) -> MakerPlan:
        steps = tuple(joined(step, others.entries) for step in self.making_steps(devices))
        for step in steps:
            running = seen.get(step.group)
            if running is not None and running.state is GroupState.WEDGED:
                raise not_usable(running)
        return MakerPlan(steps)

    def making_steps(self, devices: Sequence[ClaimDevice]) -> tuple[GroupUp, ...]:
        steps = (self._group(device, devices) for device in devices)
        return tuple({step.group: step for step in steps if step is not None}.values())

    def still_needed(self, record: StepRecord, others: Sequence[ClaimEntry]) -> bool:
        """The shares of a device are in one group, which the last of them takes away."""
        group = group_in(record)
        return group is not None and any(group_in(theirs) == group for entry in others for theirs in entry.steps)

    def again(self, record: StepRecord) -> GroupUp:
        return recorded_step(record)

    def runners(self) -> Mapping[str, StepRunner]:
        return {MPS_GROUP: self._runner}

    # -- edits --------------------------------------------------------------------------------------------------------

    def late_edits(self, device: ClaimDevice, done: Sequence[StepRecord]) -> ContainerEdits:
        step = step_with(member_of(device), done)
        if step is None or device.allocated.admin_access:
            return ContainerEdits()
        folders = folders_of(self._plugin_folder, step.group)
        shm = Mount(str(folders.shm), _SHM_IN_CONTAINER, _MOUNT_OPTIONS)
        if step.protocol == NAMED:
            # Each share has a pipe directory of its own (``kinds.fence``); this one leads to everybody's limits.
            return ContainerEdits(mounts=(shm,))
        return ContainerEdits(
            env=(PIPE_ENV,), mounts=(shm, Mount(str(folders.pipe), PIPE_IN_CONTAINER, _MOUNT_OPTIONS))
        )

    # -- what has become of it ----------------------------------------------------------------------------------------

    def trouble(self, device: HeldDevice, entry: ClaimEntry, machine: Machine) -> str:
        group = group_with(member_held(device), entry.steps)
        return "" if group is None else self._states.trouble(group)

    def mend(self, claim: ClaimRef, devices: Sequence[HeldDevice], machine: Callable[[], Machine]) -> Mended:
        """Whether it had a group is not known any more. Stopping one that is not there is nothing."""
        shares = {member_held(held) for held in devices if held.is_share and held.gpu_uuid and not held.admin_access}
        groups = [replicas_group(member) for member in sorted(shares)]
        groups += [fractions_group(member.gpu_uuid, member.device) for member in sorted(shares)]
        steps = (lost_group(), *map(lost_group, groups))
        return Mended(tuple(devices), tuple(step.record() for step in steps))
