"""Groups and their states as messages of ``api/mps``, and back."""

from __future__ import annotations

from collections.abc import Iterable

from api.mps import supervisor_v1_pb2 as pb
from dra_driver.mps.group import LEGACY, GroupState, GroupStatus, MpsGroup, MpsShare, ShareStatus

_TO_WIRE = {
    GroupState.STARTING: pb.STARTING,
    GroupState.READY: pb.READY,
    GroupState.WEDGED: pb.WEDGED,
    GroupState.DEAD: pb.DEAD,
    GroupState.STOPPING: pb.STOPPING,
}
_FROM_WIRE = {wire: state for state, wire in _TO_WIRE.items()}


def group_to_wire(group: MpsGroup) -> pb.Group:
    return pb.Group(
        id=group.id,
        devices=group.devices,
        exclusive_gpus=group.exclusive_gpus,
        active_thread_percentage=group.active_thread_percentage,
        pinned_memory_mib=dict(group.pinned_memory_mib),
        multi_user=group.multi_user,
        mps_protocol=0 if group.protocol == LEGACY else group.protocol,  # as before there were two
        serve=group.serve,
    )


def group_from_wire(message: pb.Group) -> MpsGroup:
    """As it was sent, but sorted: two groups with the same devices in another order are the same."""
    has_percentage = message.HasField("active_thread_percentage")
    return MpsGroup(
        id=message.id,
        devices=tuple(sorted(message.devices)),
        exclusive_gpus=tuple(sorted(message.exclusive_gpus)),
        active_thread_percentage=message.active_thread_percentage if has_percentage else None,
        pinned_memory_mib=dict(message.pinned_memory_mib),
        multi_user=message.multi_user,
        protocol=message.mps_protocol or LEGACY,
        serve=message.serve,
    )


def share_to_wire(share: MpsShare) -> pb.Share:
    return pb.Share(
        name=share.name,
        pinned_memory_mib=dict(share.pinned_memory_mib),
        active_thread_percentage=share.active_thread_percentage,
        low_priority=share.low_priority,
    )


def share_from_wire(message: pb.Share) -> MpsShare:
    has_percentage = message.HasField("active_thread_percentage")
    return MpsShare(
        name=message.name,
        pinned_memory_mib=dict(message.pinned_memory_mib),
        active_thread_percentage=message.active_thread_percentage if has_percentage else None,
        low_priority=message.low_priority,
    )


def status_to_wire(status: GroupStatus) -> pb.GroupStatus:
    return pb.GroupStatus(
        group=group_to_wire(status.group),
        state=_TO_WIRE[status.state],
        message=status.message,
        pid=status.pid,
        clients=status.clients,
        shares=[pb.ShareStatus(share=share_to_wire(each.share), message=each.message) for each in status.shares],
    )


def status_from_wire(message: pb.GroupStatus) -> GroupStatus:
    """A state that this version does not know is taken for dead: nothing may be built on it."""
    state = _FROM_WIRE.get(message.state)
    unknown = f"state {message.state} is not known to this version" if state is None else ""
    return GroupStatus(
        group=group_from_wire(message.group),
        state=state or GroupState.DEAD,
        message=message.message or unknown,
        pid=message.pid,
        clients=message.clients,
        shares=tuple(ShareStatus(share_from_wire(each.share), each.message) for each in message.shares),
    )


def statuses_to_wire(statuses: Iterable[GroupStatus]) -> pb.Groups:
    return pb.Groups(groups=[status_to_wire(status) for status in statuses])


def statuses_from_wire(message: pb.Groups) -> tuple[GroupStatus, ...]:
    return tuple(status_from_wire(each) for each in message.groups)
