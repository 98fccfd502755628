"""A group is the same on both ends of the wire, whatever order its devices came in."""

from __future__ import annotations

from api.mps import supervisor_v1_pb2 as pb
from dra_driver.mps.group import LEGACY, NAMED, GroupState, GroupStatus, MpsGroup, MpsShare, ShareStatus
from dra_driver.mps.wire import (
    group_from_wire,
    group_to_wire,
    share_from_wire,
    share_to_wire,
    status_from_wire,
    status_to_wire,
    statuses_from_wire,
    statuses_to_wire,
)

GROUP = MpsGroup("claim-1", ("GPU-a", "GPU-b"), ("GPU-a",), 0, {"GPU-b": 10240}, multi_user=True)


def test_there_and_back() -> None:
    for group in (GROUP, MpsGroup("g", ("MIG-1",)), MpsGroup("g", ("GPU-a",), protocol=NAMED)):
        sent = pb.Group.FromString(group_to_wire(group).SerializeToString())
        assert group_from_wire(sent) == group


def test_a_group_of_before_there_were_two_protocols_has_the_first() -> None:
    assert group_from_wire(pb.Group(id="g", devices=["GPU-a"])) == MpsGroup("g", ("GPU-a",))
    assert MpsGroup("g", ("GPU-a",)).protocol == LEGACY


# As the first release sends GROUP, and a status of it.
FIRST_GROUP = b"\n\x07claim-1\x12\x05GPU-a\x12\x05GPU-b\x1a\x05GPU-a \x00*\n\n\x05GPU-b\x10\x80P0\x01"
FIRST_STATUS = b"\n." + FIRST_GROUP + b"\x10\x02 \x07(\x02"


def test_what_has_no_shares_is_sent_as_by_the_first_release() -> None:
    status = GroupStatus(GROUP, GroupState.READY, pid=7, clients=2)
    assert group_to_wire(GROUP).SerializeToString(deterministic=True) == FIRST_GROUP
    assert status_to_wire(status).SerializeToString(deterministic=True) == FIRST_STATUS
    assert group_from_wire(pb.Group.FromString(FIRST_GROUP)) == GROUP
    assert status_from_wire(pb.GroupStatus.FromString(FIRST_STATUS)) == status


def test_a_share_there_and_back() -> None:
    for share in (MpsShare("a", {"GPU-a": 1024}, 25, low_priority=True), MpsShare("b")):
        assert share_from_wire(pb.Share.FromString(share_to_wire(share).SerializeToString())) == share


def test_no_percentage_is_not_zero() -> None:
    assert group_from_wire(group_to_wire(GROUP)).active_thread_percentage == 0
    assert group_from_wire(pb.Group(id="g")).active_thread_percentage is None


def test_devices_are_sorted() -> None:
    assert group_from_wire(pb.Group(devices=["b", "a"], exclusive_gpus=["d", "c"])) == MpsGroup(
        "", ("a", "b"), ("c", "d")
    )


def test_every_state_has_its_own_number() -> None:
    statuses = tuple(
        GroupStatus(GROUP, state, "why", 7, 2, (ShareStatus(MpsShare("a"), "gone"),)) for state in GroupState
    )
    assert statuses_from_wire(statuses_to_wire(statuses)) == statuses
    assert len({status_to_wire(status).state for status in statuses}) == len(GroupState)


def test_a_state_of_another_version_is_taken_for_dead() -> None:
    status = status_from_wire(pb.GroupStatus(state=99))  # type: ignore[arg-type]
    assert status.state is GroupState.DEAD
    assert "99" in status.message
