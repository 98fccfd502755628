"""What is shared while claims have it: never taken away, and drained before it is offered otherwise."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dra_driver.hardware.model import Machine
from tests.controller.sharing_cluster import FOUR, MPS, TWO, Cluster


@pytest.mark.parametrize(
    ("after", "free"),
    [
        ({"any": TWO}, "2"),
        ({}, None),
        ({"any": MPS}, "4"),
        ({"any": FOUR.replace("Default: false", "Default: true")}, "4"),
    ],
    ids=["fewer", "none", "mps", "renamed"],
)
def test_a_share_in_use_is_never_taken_and_no_other_is_given_until_it_is_free(
    cluster: Cluster, a100: Machine, after: Mapping[str, str], free: str | None
) -> None:
    world = cluster.world
    world.add_node("n1", a100)
    cluster.apply(any=FOUR)
    cluster.start()
    cluster.shared("n1", 8, 4)
    first, second = world.allocate("n1", "gpu-0", share=True), world.allocate("n1", "gpu-0", share=True)
    as_it_was = world.device("n1", "gpu-0")
    cluster.apply(**after)
    world.wait(lambda: cluster.tainted("n1", "gpu-0"), "the device to drain")
    drained = world.device("n1", "gpu-0")
    drained.pop("taints")
    assert drained == as_it_was
    world.wait(lambda: "gpu-0 stays as before until the claims on it have ended" in cluster.condition("n1")["message"])
    assert "shares of each of gpu-0" not in cluster.condition("n1")["message"]
    world.wait(lambda: cluster.shares("n1").get("gpu-1") == free)
    assert not cluster.tainted("n1", "gpu-1")
    world.deallocate(first)
    world.assert_quiet()
    assert cluster.tainted("n1", "gpu-0")
    world.deallocate(second)
    world.wait(lambda: not cluster.tainted("n1", "gpu-0"), "the device to be offered anew")
    assert cluster.shares("n1").get("gpu-0") == free
    world.wait(lambda: "as before" not in cluster.condition("n1")["message"])


def test_a_whole_gpu_in_use_does_not_become_shareable_until_it_is_free(cluster: Cluster, a100: Machine) -> None:
    world = cluster.world
    world.add_node("n1", a100)
    cluster.start()
    world.published("n1", 8)
    claim = world.allocate("n1", "gpu-0")
    cluster.apply(any=FOUR)
    cluster.shared("n1", 7, 4)
    assert "allowMultipleAllocations" not in world.device("n1", "gpu-0")
    assert cluster.tainted("n1", "gpu-0")
    world.deallocate(claim)
    cluster.shared("n1", 8, 4)
    assert not cluster.tainted("n1", "gpu-0")


def test_a_claim_that_got_a_gpu_otherwise_than_it_is_offered_now_has_it_alone(cluster: Cluster, a100: Machine) -> None:
    """It was allocated by the slices of a moment before."""
    world = cluster.world
    world.add_node("n1", a100)
    cluster.apply(any=FOUR)
    cluster.start()
    cluster.shared("n1", 8, 4)
    whole = world.allocate("n1", "gpu-0")
    world.wait(lambda: cluster.tainted("n1", "gpu-0"))
    world.deallocate(whole)
    world.wait(lambda: not cluster.tainted("n1", "gpu-0"))
    cluster.remove()
    cluster.shared("n1", 0, 0)
    share = world.allocate("n1", "gpu-1", share=True)
    world.wait(lambda: cluster.tainted("n1", "gpu-1"))
    world.deallocate(share)
    world.wait(lambda: not cluster.tainted("n1", "gpu-1"))


def test_unchanged_sharing_leaves_devices_with_shares_in_use_as_they_are(cluster: Cluster, a100: Machine) -> None:
    world = cluster.world
    world.add_node("n1", a100)
    cluster.apply(any=FOUR)
    cluster.start()
    cluster.shared("n1", 8, 4)
    world.assert_quiet()
    before = world.slice_writes()
    world.allocate("n1", "gpu-0", share=True)
    cluster.apply(any=f"{FOUR}\n# a remark", more="version: v1", default=FOUR)
    world.wait(lambda: "key default" in cluster.in_force("n1")["source"])
    world.assert_quiet()
    assert world.slice_writes() == before


# -- rules of our own -------------------------------------------------------------------------------------------------
