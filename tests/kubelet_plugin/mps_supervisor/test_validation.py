"""What the supervisor refuses, field by field."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dra_driver.hardware.nvml.compute_device import ComputeDevice
from dra_driver.mps.errors import GroupRefused
from dra_driver.mps.group import NAMED, MpsGroup, MpsShare
from kubelet_plugin.mps_supervisor.validation import check, check_id, check_protocol, check_share

GPU = ComputeDevice("GPU-a", False, 81559, (9, 0))
MIG = ComputeDevice("MIG-b", True, 9984, (9, 0))
OLD = ComputeDevice("GPU-p", False, 16000, (6, 1))
UNIFIED = ComputeDevice("GPU-u", False, None, (12, 1))
FOUND = {each.uuid: each for each in (GPU, MIG, OLD, UNIFIED)}
GOOD = MpsGroup("claim-1", ("GPU-a", "MIG-b"), ("GPU-a",), 50, {"GPU-a": 81559, "MIG-b": 1}, multi_user=True)


def test_what_can_be_had() -> None:
    check(GOOD, FOUND)
    check(MpsGroup("g", ("GPU-u",), (), None, {"GPU-u": 10**6}), FOUND)
    check(MpsGroup("g", ("GPU-p",), ("GPU-p",), 1), FOUND)


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (replace(GOOD, devices=(), exclusive_gpus=(), pinned_memory_mib={}), "has no devices"),
        (replace(GOOD, devices=("GPU-a", "GPU-a", "MIG-b")), "one device twice"),
        (replace(GOOD, devices=("GPU-a", "GPU-gone", "MIG-b")), r"device GPU-gone is not on this node"),
        (replace(GOOD, exclusive_gpus=("GPU-p",)), "exclusive GPU GPU-p is not one of its devices"),
        (replace(GOOD, exclusive_gpus=("MIG-b",)), "MIG-b is a MIG device"),
        (replace(GOOD, active_thread_percentage=0), "percentage 0 must be 1 to 100"),
        (replace(GOOD, active_thread_percentage=101), "percentage 101 must be 1 to 100"),
        (replace(GOOD, pinned_memory_mib={"GPU-p": 10}), "limit of GPU-p, which is not one"),
        (replace(GOOD, pinned_memory_mib={"GPU-a": 0}), "is 0 MiB, it must be 1 MiB or more"),
        (replace(GOOD, pinned_memory_mib={"MIG-b": 9985}), "is 9985 MiB, the device has 9984 MiB"),
        (MpsGroup("g", ("GPU-p",), multi_user=True), r"needs compute capability 7.0, GPU-p has 6.1"),
    ],
)
def test_what_cannot_is_refused_with_field_and_value(group: MpsGroup, words: str) -> None:
    with pytest.raises(GroupRefused, match=words) as caught:
        check(group, FOUND)
    assert str(caught.value).startswith(f"MPS group {group.id}")


NAMED_GROUP = MpsGroup("claim-1", ("GPU-a", "GPU-u"), ("GPU-a",), protocol=NAMED)
SHARE = MpsShare("a_1", {"GPU-a": 1024, "GPU-u": 1024}, 25)


def test_a_share_that_can_be_had() -> None:
    check(NAMED_GROUP, FOUND)
    check_protocol(NAMED_GROUP, (2, 3))
    for share in (SHARE, MpsShare("a" * 64), MpsShare("_", {"GPU-a": 81559}, 100, low_priority=True)):
        check_share(NAMED_GROUP, share, FOUND)


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (replace(NAMED_GROUP, protocol=4), "MPS protocol 4 is none of 2 and 3"),
        (replace(NAMED_GROUP, active_thread_percentage=50), "limits are those of its shares"),
        (replace(NAMED_GROUP, pinned_memory_mib={"GPU-a": 1}), "limits are those of its shares"),
        (replace(NAMED_GROUP, devices=("GPU-a", "MIG-b")), "MIG-b is a MIG device, for which there is no"),
        (MpsGroup("g", ("GPU-p",), protocol=NAMED), r"needs compute capability 7.0, GPU-p has 6.1"),
    ],
)
def test_a_group_of_protocol_3_that_cannot_be(group: MpsGroup, words: str) -> None:
    with pytest.raises(GroupRefused, match=words):
        check(group, FOUND)


def test_a_protocol_that_the_node_does_not_speak() -> None:
    with pytest.raises(GroupRefused, match="does not know protocol 3"):
        check_protocol(NAMED_GROUP, (2,))


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (replace(SHARE, name="control"), "none of default, control, log"),
        (replace(SHARE, name="a-1"), "must be at most 64 lower case"),
        (replace(SHARE, active_thread_percentage=101), "percentage 101 must be 1 to 100"),
        (replace(SHARE, pinned_memory_mib={"GPU-a": 1024, "GPU-u": 1025}), "differ, MPS protocol 3 has one for all"),
        (replace(SHARE, pinned_memory_mib={"GPU-a": 81560}), "the device has 81559 MiB"),
    ],
)
def test_a_share_that_cannot_be(share: MpsShare, words: str) -> None:
    with pytest.raises(GroupRefused, match=words):
        check_share(NAMED_GROUP, share, FOUND)


@pytest.mark.parametrize("group_id", ["", ".", "..", "a/b", "A", "-a", "a-", "a.b", "a" * 64, "supervisor.sock"])
def test_an_id_names_a_folder_and_nothing_else(group_id: str) -> None:
    with pytest.raises(GroupRefused, match="must be at most 63"):
        check_id(group_id)


@pytest.mark.parametrize("group_id", ["a", "0f6b0e4d-0000-4000-8000-000000000000-ab12f", "a" * 63])
def test_ids_that_can_be(group_id: str) -> None:
    assert check_id(group_id) == group_id
