"""A group is the same on both ends of the wire, whatever order its devices came in."""

from __future__ import annotations

from api.mps import supervisor_v1_pb2 as pb
from dra_driver.mps.group import GroupState, GroupStatus, MpsGroup
from dra_driver.mps.wire import (
    group_from_wire,
    group_to_wire,
    status_from_wire,
    status_to_wire,
    statuses_from_wire,
    statuses_to_wire,
)

GROUP = MpsGroup("claim-1", ("GPU-a", "GPU-b"), ("GPU-a",), 0, {"GPU-b": 10240}, multi_user=True)


def test_there_and_back() -> None:
    for group in (GROUP, MpsGroup("g", ("MIG-1",))):
        sent = pb.Group.FromString(group_to_wire(group).SerializeToString())
        assert group_from_wire(sent) == group


def test_no_percentage_is_not_zero() -> None:
    assert group_from_wire(group_to_wire(GROUP)).active_thread_percentage == 0
    assert group_from_wire(pb.Group(id="g")).active_thread_percentage is None


def test_devices_are_sorted() -> None:
    assert group_from_wire(pb.Group(devices=["b", "a"], exclusive_gpus=["d", "c"])) == MpsGroup(
        "", ("a", "b"), ("c", "d")
    )


def test_every_state_has_its_own_number() -> None:
    statuses = tuple(GroupStatus(GROUP, state, "why", 7, 2) for state in GroupState)
    assert statuses_from_wire(statuses_to_wire(statuses)) == statuses
    assert len({status_to_wire(status).state for status in statuses}) == len(GroupState)


def test_a_state_of_another_version_is_taken_for_dead() -> None:
    status = status_from_wire(pb.GroupStatus(state=99))  # type: ignore[arg-type]
    assert status.state is GroupState.DEAD
    assert "99" in status.message
