"""Devices that are offered in fractions, what fences each share as its claim's status says, and NVIDIA's counted shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from api.fractions import SharingBackend
from api.mig_policy import MigMode
from dra_driver.cli.shares.document import shares_json
from dra_driver.cli.shares.holding import nodes_of
from dra_driver.cli.shares.reading import view
from dra_driver.cli.shares.use import NodeUse, Why
from dra_driver.cli.shares.words import fence, number
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.devices.sharing import Counted, Fractions, SharingPolicy, SharingRule
from dra_driver.hardware.model import Gpu, Reserve
from dra_driver.kube.interface import Obj
from dra_driver.quantity import Quantity
from kubelet_plugin.kinds.fence.status import GONE, FenceState, status_devices
from kubelet_plugin.kinds.fence.step import FenceShare
from tests.cli.mig.world import DRIVER, gpus, having, instance, slices
from tests.cli.shares.world import blocked, cells, row, share, table, uses

MIB, GIB = 2**20, 2**30
CGROUP, NAMESPACE, MPS, NONE = SharingBackend
MIG = "gpu-0-mig-1g5gb-19-0"
FRACTIONS = Fractions(256 * MIB, 1)
POLICY = DevicePolicy(
    mig=MigPolicy((MigRule(mode=MigMode.STATIC),)),
    sharing=SharingPolicy((SharingRule(FRACTIONS), SharingRule(FRACTIONS, mig_profile="1g.5gb"))),
)
QUARTER: Mapping[str, str] = {"memory": "4Gi", "compute": "25"}


def measured(gpu: Gpu, *devices: str) -> Gpu:
    return replace(gpu, reserves=tuple(Reserve(device, 300 * MIB) for device in devices))


def fractions(*fences: SharingBackend) -> list[Obj]:
    """A T4, which has 15Gi, offered in fractions."""
    return slices("n0", [measured(gpus("t4", 1)[0], "gpu-0")], POLICY, fences=fences)


def holder(name: str, **consumed: str) -> Obj:
    return share(name, "gpu-0", {**QUARTER, **consumed}, pods=[f"pod-{name}"])


def told(
    claim: Obj, backend: SharingBackend, status: str = "True", reason: str = "", message: str = "", **limits: int
) -> Obj:
    """``claim`` with what the kubelet plugin writes of its shares."""
    states = [
        FenceState(
            FenceShare("uid", each["device"], each["shareID"], "GPU-0", "GPU-0", backend, 4 * GIB,
                       limits.get("memory_limit", 4 * GIB), 25),
            "n0", status, reason or f"By{backend}", message,
        )
        for each in claim["status"]["allocation"]["devices"]["results"]
    ]  # fmt: skip
    claim["status"]["devices"] = status_devices(tuple(states), DRIVER, [], "2026-01-02T03:04:05Z")
    return claim


def holders(nodes: tuple[NodeUse, ...]) -> list[str]:
    return [line[-1] for line in cells(nodes, "gpu-0")]


def device(nodes: tuple[NodeUse, ...]) -> dict[str, Any]:
    (found,) = shares_json(nodes, DRIVER)["nodes"][0]["devices"]
    return dict(found)


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (CGROUP, "Cgroup (Enforced)"),
        (NAMESPACE, "MpsNamespace (Cooperative)"),
        (MPS, "Mps (Cooperative)"),
        (NONE, "none"),
    ],
)
def test_fractions_and_their_fence_as_published(backend: SharingBackend, said: str) -> None:
    found = () if backend is NONE else (backend,)
    nodes = uses(fractions(*found), told(holder("a"), backend))
    assert cells(nodes, "gpu-0") == [
        [
            "fractions",
            "memory 4Gi/14.5Gi, compute 25/100%",
            "memory 10.5Gi, compute 75%",
            "memory 10.5Gi, compute 75%",
            "ml/pod-a (memory 4Gi, compute 25%)",
        ]
    ]
    assert table(nodes, wide=True).splitlines()[1].endswith(f"  {said}")
    document = device(nodes)
    assert (document["sharedBy"], document["fence"], document["sharingBackend"]) == ("fractions", said, backend)
    assert document["capacity"]["memory"] == {
        "value": "14848Mi", "held": "4Gi", "free": "10752Mi", "largest": "10752Mi"
    }  # fmt: skip


def test_what_a_claim_says_of_its_fraction_is_in_the_document() -> None:
    nodes = uses(fractions(CGROUP), told(holder("a"), CGROUP, message="4096Mi of memory", memory_limit=8 * GIB))
    assert holders(nodes) == ["ml/pod-a (memory 4Gi, compute 25%)"]
    (only,) = device(nodes)["holders"]
    assert only["shares"][0]["fence"] == {
        "backend": "Cgroup",
        "enforcement": "Enforced",
        "memoryBytes": 4 * GIB,
        "memoryLimitBytes": 8 * GIB,
        "computePercent": 25,
        "enforced": "True",
        "reason": "ByCgroup",
        "message": "4096Mi of memory",
        "since": "2026-01-02T03:04:05Z",
    }


def test_a_fence_that_has_gone_is_marked_and_explained() -> None:
    dead = "the MPS daemon of gpu-0 is dead"
    gone = [told(holder(name), MPS, "False", GONE, dead) for name in ("a", "b")]
    nodes = uses(fractions(MPS), *gone, told(holder("c"), MPS))
    assert holders(nodes) == [
        "ml/pod-a (memory 4Gi, compute 25%), FenceGone",
        "ml/pod-b (memory 4Gi, compute 25%), FenceGone",
        "ml/pod-c (memory 4Gi, compute 25%)",
    ]
    for wide in (False, True):
        text = table(nodes, wide=wide)
        assert text.splitlines()[-1] == f"n0: gpu-0: FenceGone: {dead} (ml/pod-a, ml/pod-b)"
        assert text.count("compute 25%), FenceGone") == 2
    assert [each["shares"][0]["fence"]["enforced"] for each in device(nodes)["holders"]] == ["False", "False", "True"]


def test_a_holder_who_accepts_no_fence_is_marked() -> None:
    nodes = uses(fractions(), told(holder("a"), NONE, "False", "NotFenced", "the claim accepts that"))
    assert holders(nodes) == ["ml/pod-a (memory 4Gi, compute 25%), NotFenced"]
    assert table(nodes).splitlines()[-1] == "n0: gpu-0: NotFenced: the claim accepts that (ml/pod-a)"


def test_a_holder_from_before_the_node_had_more() -> None:
    nodes = uses(fractions(CGROUP), told(holder("a"), MPS), told(holder("b"), CGROUP))
    assert holders(nodes) == [
        "ml/pod-a (memory 4Gi, compute 25%), fenced by Mps (Cooperative)",
        "ml/pod-b (memory 4Gi, compute 25%)",
    ]
    assert table(nodes).splitlines()[-1] == (
        "n0: gpu-0: fenced by Mps (Cooperative): as it was when the claim was prepared; the device is fenced by "
        "Cgroup (Enforced) for new ones (ml/pod-a)"
    )


def test_a_holder_of_what_is_no_longer_offered_in_fractions() -> None:
    nodes = uses(slices("n0", gpus("t4", 1)), told(holder("a"), MPS))
    assert "fenced by Mps (Cooperative): as it was when the claim was prepared; the device is no longer" in table(nodes)


def test_a_claim_that_says_nothing_of_a_fence_is_not_marked() -> None:
    """Not prepared yet, or with the status of another driver, of another share, or about something else."""
    silent, other, wrong, networked = (holder(name) for name in ("a", "b", "c", "d"))
    told(other, MPS, "False", GONE)["status"]["devices"][0]["driver"] = "other.example.com"
    told(wrong, MPS, "False", GONE)["status"]["devices"][0]["shareID"] = "11111111-0000-4000-8000-000000000000"
    networked["status"]["devices"] = [
        {"driver": DRIVER, "pool": "n0", "device": "gpu-0", "shareID": _id(networked), "data": data, "conditions": each}
        for data, each in (
            ("text", [{"type": "Enforced", "status": "False"}]),
            ({"backend": "Mps"}, [{"type": "Ready", "status": "False"}]),
            ({}, None),
        )
    ]
    for claim in (silent, other, wrong, networked):
        nodes = uses(fractions(MPS), claim)
        assert holders(nodes)[0].endswith("(memory 4Gi, compute 25%)")
        assert device(nodes)["holders"][0]["shares"][0]["fence"] is None


def _id(claim: Obj) -> str:
    return str(claim["status"]["allocation"]["devices"]["results"][0]["shareID"])


def test_a_change_of_a_fence_is_a_change() -> None:
    """Of what ``--watch`` shows."""
    well, gone = told(holder("a"), MPS), told(holder("a"), MPS, "False", GONE)
    assert nodes_of(view(DRIVER, fractions(MPS), [well], [])) != nodes_of(view(DRIVER, fractions(MPS), [gone], []))


def test_no_memory_is_no_fraction_and_no_compute_is_one_without_a_ceiling() -> None:
    """One step of memory is the least; compute without memory would be a fraction that the scheduler never gives."""
    nodes = uses(fractions(MPS), holder("a", memory="14848Mi", compute="10"))
    assert cells(nodes, "gpu-0")[0][2:4] == ["-", "-"]
    assert blocked(nodes, "gpu-0").why is Why.FULL
    assert {use.largest for use in row(nodes, "gpu-0").uses} == {None}
    nodes = uses(fractions(MPS), holder("a", memory="14592Mi", compute="100"))
    assert cells(nodes, "gpu-0")[0][3] == "memory 256Mi"


def test_fractions_of_a_mig_device() -> None:
    (whole,) = gpus("a100-sxm4-40gb", 1)
    divided = measured(having(whole, instance(whole, "1g.5gb", 0)), MIG)
    nodes = uses(slices("n0", [divided], POLICY, fences=(CGROUP, MPS)), share("a", MIG, QUARTER))
    assert cells(nodes, MIG)[0][0] == "fractions"
    inside = "inside of a part that fences its processes off from the rest"
    assert fence(row(nodes, MIG)) == f"Mps (Cooperative), {inside}"


@pytest.mark.parametrize("memory", [True, False])
def test_nvidias_counted_shares_have_no_fence(memory: bool) -> None:
    policy = DevicePolicy(sharing=SharingPolicy(otherwise=Counted(memory)))
    nodes = uses(slices("n0", gpus("t4", 1), policy), share("a", "gpu-0", {"memory": "4Gi"}, pods=["p"]))
    assert cells(nodes, "gpu-0") == [
        ["counted", "memory 4Gi/15Gi", "memory 11Gi", "memory 11Gi", "ml/p (memory 4Gi)"]
    ]  # fmt: skip
    assert fence(row(nodes, "gpu-0")) == "none"
    assert device(nodes)["sharingBackend"] is None


@pytest.mark.parametrize(
    ("name", "quantity", "said"),
    [
        ("memory", "40448Mi", "39.5Gi"),
        ("memory", "9984Mi", "9.75Gi"),
        ("memory", "79Gi", "79Gi"),
        ("memory", "100Gi", "100Gi"),
        ("memory", "768Mi", "768Mi"),
        ("memory", "1Gi", "1Gi"),
        ("memory", "10000Mi", "10000Mi"),
        ("memory", "0", "0"),
        ("memory", "1G", "1G"),
        ("compute", "100", "100"),
    ],
)
def test_memory_is_said_exactly_and_short(name: str, quantity: str, said: str) -> None:
    assert number(name, Quantity.parse(quantity)) == said
    assert Quantity.parse(said) == Quantity.parse(quantity)
