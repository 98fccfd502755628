"""Who holds what, what is free, and the largest request that still fits: recorded GPUs, and capacities of any kind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.mig_policy import MigMode
from dra_driver.allocator.model import ClaimKey, Obj
from dra_driver.cli.shares.holding import nodes_of
from dra_driver.cli.shares.reading import view
from dra_driver.cli.shares.use import COUNTED, Why
from dra_driver.cli.shares.words import NOTHING_SHARED, fence
from dra_driver.devices.policy import MigRule
from dra_driver.errors import DriverError
from dra_driver.slices.features import ApiFeatures
from tests.allocator.builders import gpu, resource_slice, shared_gpu
from tests.cli.mig.world import DRIVER, claim, gpus, having, instance, slices
from tests.cli.shares.world import (
    MPS,
    ONE,
    TIME_SLICING,
    blocked,
    cells,
    row,
    rule,
    share,
    sharing,
    table,
    tainted,
    uses,
)

FOUR = sharing(rule(TIME_SLICING, 4))
DYNAMIC, STATIC = MigRule(mode=MigMode.DYNAMIC), MigRule(mode=MigMode.STATIC)
NO_SHARES = ApiFeatures(consumable=False)
GUIDE = Path(__file__).resolve().parents[3] / "docs" / "user" / "sharing.md"


def test_a_free_gpu_a_partly_held_one_and_a_full_one() -> None:
    full = [share(f"f{number}", "gpu-2", ONE, pods=[f"pod-{number}"]) for number in range(4)]
    partly = share("p", "gpu-1", ONE, pods=["one"])
    nodes = uses(slices("n0", gpus("t4", 3), FOUR), partly, *full)
    assert (
        table(nodes)
        == """\
NODE  DEVICE  SHARED BY    HELD        FREE      LARGEST                HOLDERS
n0    gpu-0   TimeSlicing  0/4 shares  4 shares  4 shares, memory 15Gi  -
n0    gpu-1   TimeSlicing  1/4 shares  3 shares  3 shares, memory 15Gi  ml/one (1 share)
n0    gpu-2   TimeSlicing  4/4 shares  -         -                      ml/pod-0 (1 share)
                                                                        ml/pod-1 (1 share)
                                                                        ml/pod-2 (1 share)
                                                                        ml/pod-3 (1 share)"""
    )
    assert blocked(nodes, "gpu-2").why is Why.FULL


def test_one_share_a_request_is_the_largest_where_two_are_refused() -> None:
    published = slices("n0", gpus("t4", 1), FOUR)
    published[0]["spec"]["devices"][0]["capacity"]["shares"]["requestPolicy"] = {
        "default": "1",
        "validRange": {"min": "1", "max": "1", "step": "1"},
    }
    assert cells(uses(published), "gpu-0")[0][2:4] == ["4 shares", "1 share, memory 15Gi"]


def test_exclusive_gpus_are_there_too_and_nothing_shared_is_said() -> None:
    nodes = uses(slices("n0", gpus("t4", 2)), claim("c", "n0", "gpu-1", pods=["train"]))
    assert table(nodes) == (
        "NODE  DEVICE  SHARED BY  HELD   FREE   LARGEST  HOLDERS\n"
        "n0    gpu-0   exclusive  -      whole  whole    -\n"
        "n0    gpu-1   exclusive  whole  -      -        ml/train (whole)\n"
        f"\n{NOTHING_SHARED}"
    )
    assert NOTHING_SHARED not in table(uses(slices("n0", gpus("t4", 1), FOUR)))


def test_a_draining_device_keeps_its_holders_and_gets_nobody() -> None:
    published = slices("n0", gpus("t4", 2), FOUR)
    tainted(published, "gpu-0", "gpu.nvidia.com/unavailable")
    nodes = uses(published, share("c", "gpu-0", ONE, pods=["p"]))
    assert cells(nodes, "gpu-0") == [["TimeSlicing", "1/4 shares", "-", "none: draining", "ml/p (1 share)"]]
    assert table(nodes).splitlines()[-1] == (
        "n0: gpu-0: draining: it is to be offered otherwise, or no longer; whoever has some keeps it, and nobody new "
        "gets any"
    )


def test_other_taints_are_named_and_one_that_only_informs_keeps_nobody_away() -> None:
    published = slices("n0", gpus("t4", 3), FOUR)
    tainted(published, "gpu-0", "gpu.nvidia.com/mps-unhealthy")
    tainted(published, "gpu-1", "example.com/mine", "NoExecute")
    tainted(published, "gpu-2", "example.com/note", "None")
    nodes = uses(published)
    largest = [cells(nodes, f"gpu-{minor}")[0][3] for minor in range(3)]
    assert largest == ["none: MPS unhealthy", "none: example.com/mine:NoExecute", "4 shares, memory 15Gi"]
    assert "gpu-0: MPS unhealthy: its MPS daemon is dead or stuck; delete the pods" in table(nodes)
    assert "gpu-2: example.com/note:None: " in table(nodes)


def test_mps_replicas_and_their_fence_in_the_words_of_the_guide() -> None:
    nodes = uses(slices("n0", gpus("t4", 1), sharing(rule(MPS, 8))), share("c", "gpu-0", ONE, pods=["p"]))
    assert cells(nodes, "gpu-0") == [["MPS", "1/8 shares", "7 shares", "7 shares, memory 15Gi", "ml/p (1 share)"]]
    guide = " ".join(GUIDE.read_text().split())
    by_mps = fence(row(nodes, "gpu-0"))
    assert by_mps == "MPS: each process gets at most 1/8 of the multiprocessors and of the memory"
    assert by_mps.removeprefix("MPS: ").replace("1/8", "1/replicas") in guide
    sliced = fence(row(uses(slices("n0", gpus("t4", 1), FOUR)), "gpu-0"))
    assert sliced == "none: time slices divide time only"
    assert sliced.removeprefix("none: t").replace("ime", "Time", 1) in guide
    in_mig = "inside of a part that fences its processes off from the rest"
    assert in_mig.removeprefix("inside of a ").replace("that ", "") in guide


@pytest.mark.parametrize("features", [NO_SHARES, ApiFeatures(consumable=False, partitionable=False)])
def test_replica_devices_are_one_row(features: ApiFeatures) -> None:
    """With counters (an H100 is divisible) and without."""
    published = slices("n0", gpus("h100-sxm5-80gb", 2), FOUR, features)
    held = [claim(f"c{number}", "n0", f"gpu-0-replica-{number}", pods=[f"p{number}"]) for number in (1, 3)]
    nodes = uses(published, *held)
    assert [row.name for row in nodes[0].devices if not row.is_mig] == ["gpu-0", "gpu-1"]
    assert row(nodes, "gpu-0").devices == tuple(f"gpu-0-replica-{number}" for number in range(4))
    assert cells(nodes, "gpu-0") == [
        ["TimeSlicing", "2/4 shares", "2 shares", "1 share", "ml/p1 (1 share)"],
        ["", "", "", "", "ml/p3 (1 share)"],
    ]
    full = [claim(f"f{number}", "n0", f"gpu-1-replica-{number}") for number in range(4)]
    assert cells(uses(published, *full), "gpu-1")[0] == ["TimeSlicing", "4/4 shares", "-", "-", "claim ml/f0 (1 share)"]


@pytest.mark.parametrize("features", [NO_SHARES, ApiFeatures()])
def test_a_mig_device_of_the_gpu_keeps_its_shares_from_everybody(features: ApiFeatures) -> None:
    published = slices("n0", gpus("h100-sxm5-80gb", 1), FOUR, features)
    nodes = uses(published, claim("part", "n0", "gpu-0-mig-1g10gb-19-6", pods=["p"]))
    assert cells(nodes, "gpu-0") == [["TimeSlicing", "0/4 shares", "-", "none: hardware in use", "-"]]
    assert "n0: gpu-0: devices of the same hardware are in use by ml/part" in table(nodes)
    assert blocked(nodes, "gpu-0").claims == (ClaimKey("ml", "part"),)


def test_one_replica_that_is_left_of_four_is_one_of_four() -> None:
    published = slices("n0", gpus("t4", 1), FOUR, NO_SHARES)
    published[0]["spec"]["devices"] = published[0]["spec"]["devices"][2:3]
    tainted(published, "gpu-0-replica-2", "gpu.nvidia.com/unavailable")
    nodes = uses(published, claim("c", "n0", "gpu-0-replica-2", pods=["p"]))
    assert cells(nodes, "gpu-0") == [["TimeSlicing", "1/4 shares", "-", "none: draining", "ml/p (1 share)"]]


def test_mig_devices_that_are_shared_have_rows_and_others_a_note() -> None:
    divided = gpus("a100-sxm4-40gb", 2)
    divided = [having(each, instance(each, "3g.20gb", 4), instance(each, "1g.5gb", 0, number=2)) for each in divided]
    policy = sharing(rule(MPS, 2, "1g.5gb"), mig=STATIC)
    nodes = uses(slices("n0", divided[:1], policy), share("c", "gpu-0-mig-1g5gb-19-0", ONE, pods=["p"]))
    assert [each.name for each in nodes[0].devices] == ["gpu-0-mig-1g5gb-19-0"]
    found = row(nodes, "gpu-0-mig-1g5gb-19-0")
    assert (found.uuid, found.gpu_uuid) == ("MIG-0-2", "GPU-a100-sxm4-40gb-0")
    assert cells(nodes, found.name) == [["MPS", "1/2 shares", "1 share", "1 share, memory 4.75Gi", "ml/p (1 share)"]]
    assert fence(found).startswith("MPS: each process gets at most 1/2")
    assert fence(found).endswith("(inside of a part that fences its processes off from the rest)")
    unshared = table(uses(slices("n0", divided[1:], sharing(mig=STATIC))))
    assert unshared == (
        "n0: gpu-1 is offered in MIG devices that are not shared; gpu-dra mig status draws them\n\n" + NOTHING_SHARED
    )


def test_a_whole_gpu_of_which_a_mig_device_is_in_use() -> None:
    published = slices("n0", gpus("h100-sxm5-80gb", 1), sharing(mig=DYNAMIC))
    nodes = uses(published, claim("big", "n0", "gpu-0-mig-4g40gb-5-0"))
    assert cells(nodes, "gpu-0") == [["exclusive", "-", "-", "none: hardware in use", "-"]]


def test_a_claim_with_two_shares_of_one_device_is_one_holder() -> None:
    nodes = uses(slices("n0", gpus("t4", 1), FOUR), share("two", "gpu-0", ONE, {"shares": "1", "memory": "1Gi"}))
    assert cells(nodes, "gpu-0") == [
        [
            "TimeSlicing",
            "2/4 shares, memory 1Gi/15Gi",
            "2 shares, memory 14Gi",
            "2 shares, memory 14Gi",
            "claim ml/two (2 shares, memory 1Gi)",
        ]
    ]
    (holder,) = row(nodes, "gpu-0").holders
    assert [each.id for each in holder.shares] == [
        "00000000-0000-4000-8000-00000074776f",
        "00000001-0000-4000-8000-00000074776f",
    ]
    wide = table(nodes, wide=True).splitlines()
    assert wide[0].split()[-4:] == ["CONSUMES", "UUID", "PRODUCT", "FENCE"]
    assert "00000000-0000-4000-8000-00000074776f  1 share, memory 0  " in wide[1]
    assert "GPU-t4-0  Tesla T4" in wide[1]
    assert wide[1].endswith("none: time slices divide time only")
    assert re.fullmatch(r" +00000001-0000-4000-8000-00000074776f  1 share, memory 1Gi", wide[2])


def test_pods_that_share_a_claim_and_a_pod_that_has_gone() -> None:
    both = share("both", "gpu-0", ONE, pods=["a", "b"])
    gone = share("gone", "gpu-0", ONE, pods=["c"])
    published = slices("n0", gpus("t4", 1), FOUR)
    there = [
        {"metadata": {"name": name, "namespace": "ml", "uid": uid}}
        for name, uid in (("a", "uid-a"), ("b", "uid-b"), ("c", "another"))
    ]
    nodes = nodes_of(view(DRIVER, published, [both, gone], there))
    assert [line[-1] for line in cells(nodes, "gpu-0")] == ["ml/a + ml/b (1 share)", "claim ml/gone (1 share)"]


def test_admin_access_holds_nothing() -> None:
    watcher = share("watch", "gpu-0", ONE, pods=["w"], admin=True)
    nodes = uses(slices("n0", gpus("t4", 1), FOUR), watcher)
    assert cells(nodes, "gpu-0")[0] == ["TimeSlicing", "0/4 shares", "4 shares", "4 shares, memory 15Gi", "-"]


def parts(**capacity: Obj) -> list[Obj]:
    """A GPU that is given in parts, with these capacities."""
    return [resource_slice("n0", [gpu(0, capacity=capacity, allowMultipleAllocations=True)])]


MEMORY = {"value": "40Gi", "requestPolicy": {"default": "4Gi", "validRange": {"min": "4Gi", "step": "3Gi"}}}
COMPUTE = {"value": "100", "requestPolicy": {"default": "25", "validValues": ["10", "25", "50", "100"]}}


def test_the_largest_request_is_what_rounding_leaves() -> None:
    free = cells(uses(parts(memory=MEMORY, compute=COMPUTE)), "gpu-0")[0]
    assert free == [COUNTED, "memory 0/40Gi, compute 0/100%", "memory 40Gi, compute 100%",
                    "memory 40Gi, compute 100%", "-"]  # fmt: skip
    held = share("c", "gpu-0", {"memory": "28Gi", "compute": "60"}, pods=["p"])
    nodes = uses(parts(memory=MEMORY, compute=COMPUTE), held)
    assert cells(nodes, "gpu-0")[0][1:] == [
        "memory 28Gi/40Gi, compute 60/100%",
        "memory 12Gi, compute 40%",
        "memory 10Gi, compute 25%",
        "ml/p (memory 28Gi, compute 60%)",
    ]


@pytest.mark.parametrize(
    ("consumed", "detail"),
    [
        ({"memory": "37Gi", "compute": "10"}, "memory 3Gi of 40Gi left, asked 4Gi"),
        ({"memory": "4Gi", "compute": "95"}, "compute 5 of 100 left, asked 25"),
    ],
)
def test_less_than_the_least_of_one_capacity_is_full(consumed: dict[str, str], detail: str) -> None:
    nodes = uses(parts(memory=MEMORY, compute=COMPUTE), share("c", "gpu-0", consumed))
    assert cells(nodes, "gpu-0")[0][2:4] == ["-", "-"]
    assert (blocked(nodes, "gpu-0").why, blocked(nodes, "gpu-0").detail) == (Why.FULL, detail)
    assert all(use.largest is None for use in row(nodes, "gpu-0").uses)


def test_a_maximum_bounds_a_request_and_no_policy_none() -> None:
    bounded = {"value": "40Gi", "requestPolicy": {"default": "1Gi", "validRange": {"min": "1Gi", "max": "8Gi"}}}
    nodes = uses(parts(memory=bounded, cores={"value": "8"}))
    assert cells(nodes, "gpu-0")[0][3] == "memory 8Gi"
    assert [use.largest is None for use in row(nodes, "gpu-0").uses] == [False, True]


def test_a_shared_device_that_somebody_has_as_a_whole() -> None:
    nodes = uses([resource_slice("n0", [shared_gpu(0)])], claim("c", "n0", "gpu-0", pods=["p"]))
    assert cells(nodes, "gpu-0")[0][1:4] == ["4/4 shares, memory 40Gi/40Gi", "-", "-"]
    assert blocked(nodes, "gpu-0").why is Why.IN_USE


def test_what_is_wrong_with_a_pool_is_said() -> None:
    half = slices("n0", gpus("t4", 1), FOUR)
    half[0]["spec"]["pool"]["resourceSliceCount"] = 2
    nodes = uses(half, share("lost", "gpu-7", ONE))
    assert cells(nodes, "gpu-0")[0][2:4] == ["-", "none: pool not usable"]
    notes = table(nodes).splitlines()[-2:]
    assert notes == [
        "n0: its pool is incomplete: 1 of 2 slices are there; the scheduler uses none of its devices",
        "n0: gpu-7 is not published, and claims have it: ml/lost",
    ]
    nothing = uses(slices("n0", gpus("a30", 1), sharing(mig=STATIC)))
    assert table(nothing).splitlines()[0] == "n0: publishes no devices"
    wiped = uses(slices("n1", gpus("t4", 1), FOUR), share("c", "gpu-0", ONE))
    assert table(wiped).splitlines()[-2:] == [
        "n0: publishes no devices",
        "n0: gpu-0 is not published, and claims have it: ml/c",
    ]


def test_views_of_one_node_and_of_none() -> None:
    published = [*slices("n0", gpus("t4", 1), FOUR), *slices("n1", gpus("t4", 1))]
    assert view(DRIVER, published, (), (), node="n1").nodes == ("n1",)
    with pytest.raises(DriverError, match=r"node n9 has no device of driver gpu.nvidia.com \(these have some: n0, n1"):
        view(DRIVER, published, (), (), node="n9")
    with pytest.raises(DriverError, match=r"no ResourceSlice is of driver other \(there are slices of gpu.nvidia.com"):
        view("other", published, (), ())
    with pytest.raises(DriverError, match="the driver's controller writes them; does it run"):
        view(DRIVER, (), (), ())
