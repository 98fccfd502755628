"""Allocation by example: what is chosen, and that nothing unsuitable ever is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dra_driver.allocator.allocate import Allocator, Snapshot
from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.allocator.model import AllocationResult, Obj
from dra_driver.allocator.nodes import Node
from dra_driver.allocator.parse import UnsupportedError, parse_claim
from dra_driver.allocator.reasons import Failure, explain
from tests.allocator.builders import (
    DRIVER,
    allocated,
    alternative,
    claim,
    device_class,
    gpu,
    request,
    resource_slice,
)

ENGINE = CelEngine()
PCIE_ROOT = "resource.kubernetes.io/pcieRoot"
FOUR = [resource_slice("n", [gpu(number) for number in range(4)])]


def allocate(
    *claims: Obj, slices: Sequence[Obj] = tuple(FOUR), held: Sequence[Obj] = (), classes: Sequence[Obj] | None = None
) -> tuple[AllocationResult, ...] | Failure:
    snapshot = Snapshot.from_objects(slices, classes if classes is not None else [device_class()], held)
    return Allocator(ENGINE, snapshot).allocate(Node("n"), [parse_claim(entry) for entry in claims])


def devices(outcome: tuple[AllocationResult, ...] | Failure) -> list[list[str]]:
    assert not isinstance(outcome, Failure), explain({"n": outcome})
    return [[result.device.id.device for result in entry.results] for entry in outcome]


def reason(outcome: tuple[AllocationResult, ...] | Failure) -> str:
    assert isinstance(outcome, Failure)
    return explain({"n": outcome})


def test_the_first_device_that_fits() -> None:
    assert devices(allocate(claim("c", request()))) == [["gpu-0"]]


def test_claims_of_a_pod_do_not_share_devices() -> None:
    assert devices(allocate(claim("a", request()), claim("b", request(count=2)))) == [["gpu-0"], ["gpu-1", "gpu-2"]]


def test_devices_in_use_are_skipped() -> None:
    held = [allocated(claim("other", request()), ("n", "gpu-0"), ("n", "gpu-2"))]
    assert devices(allocate(claim("c", request(count=2)), held=held)) == [["gpu-1", "gpu-3"]]


def test_class_and_request_selectors_both_apply() -> None:
    mig = gpu(9, attributes={"type": {"string": "mig"}, "uuid": {"string": "GPU-9"}})
    slices = [resource_slice("n", [mig, gpu(0), gpu(1)])]
    wanted = request("gpu", "device.attributes['gpu.nvidia.com'].uuid != 'GPU-0'")
    assert devices(allocate(claim("c", wanted), slices=slices)) == [["gpu-1"]]


def test_all_takes_every_matching_device() -> None:
    root = "device.attributes['resource.kubernetes.io'].pcieRoot == 'pci0000:01'"
    assert devices(allocate(claim("c", request("gpu", root, allocationMode="All")))) == [["gpu-2", "gpu-3"]]


def test_all_fails_when_one_is_in_use() -> None:
    held = [allocated(claim("other", request()), ("n", "gpu-3"))]
    outcome = allocate(claim("c", request(allocationMode="All")), held=held)
    assert "1 in use by claim demo/other" in reason(outcome)
    assert "all of them are asked" in reason(outcome)


def test_all_needs_at_least_one_device_and_whole_pools() -> None:
    assert "no device is published" in reason(allocate(claim("c", request(allocationMode="All")), slices=[]))
    incomplete = [*FOUR, resource_slice("n", [gpu(0)], name="x", pool="second", count=2)]
    text = reason(allocate(claim("c", request(allocationMode="All")), slices=incomplete))
    assert "pool second of gpu.nvidia.com is incomplete: 1 of 2 slices are there" in text
    assert devices(allocate(claim("c", request()), slices=incomplete)) == [["gpu-0"]]


def test_first_available_takes_the_first_alternative_that_works() -> None:
    big = alternative("big", "device.capacity['gpu.nvidia.com'].memory.isGreaterThan(quantity('100Gi'))")
    prioritized = {"name": "gpu", "firstAvailable": [big, alternative("two", count=2), alternative("any")]}
    outcome = allocate(claim("c", prioritized))
    assert devices(outcome) == [["gpu-0", "gpu-1"]]
    assert not isinstance(outcome, Failure)
    assert outcome[0].choices == (1,)
    assert {result.request.name for result in outcome[0].results} == {"gpu/two"}


def test_an_alternative_is_given_up_for_a_later_request() -> None:
    prioritized = {"name": "a", "firstAvailable": [alternative("many", count=3), alternative("one")]}
    assert devices(allocate(claim("c", prioritized, request("b", count=2)))) == [["gpu-0", "gpu-1", "gpu-2"]]


def test_match_attribute_backtracks_to_a_root_with_two_free_gpus() -> None:
    held = [allocated(claim("other", request()), ("n", "gpu-1"))]
    pair = claim("c", request(count=2), constraints=[{"matchAttribute": PCIE_ROOT}])
    assert devices(allocate(pair, held=held)) == [["gpu-2", "gpu-3"]]


def test_match_attribute_only_binds_the_requests_it_names() -> None:
    wanted = claim(
        "c",
        request("a"),
        request("b", "device.attributes['gpu.nvidia.com'].uuid == 'GPU-3'"),
        request("c"),
        constraints=[{"matchAttribute": PCIE_ROOT, "requests": ["b", "c"]}],
    )
    assert devices(allocate(wanted)) == [["gpu-0", "gpu-3", "gpu-2"]]


def test_match_attribute_covers_alternatives_by_their_parent() -> None:
    prioritized = {"name": "a", "firstAvailable": [alternative("x"), alternative("y")]}
    wanted = claim("c", prioritized, request("b"), constraints=[{"matchAttribute": PCIE_ROOT, "requests": ["a", "b"]}])
    assert devices(allocate(wanted, held=[allocated(claim("o", request()), ("n", "gpu-0"))])) == [["gpu-2", "gpu-3"]]


def test_distinct_attribute() -> None:
    spread = claim("c", request(count=2), constraints=[{"distinctAttribute": PCIE_ROOT}])
    assert devices(allocate(spread)) == [["gpu-0", "gpu-2"]]
    text = reason(allocate(claim("c", request(count=3), constraints=[{"distinctAttribute": PCIE_ROOT}])))
    assert text == f"claim demo/c: devices are free, but no set of them satisfies distinctAttribute {PCIE_ROOT}"


def test_a_device_without_the_attribute_never_matches() -> None:
    plain = gpu(0)
    del plain["attributes"][PCIE_ROOT]
    wanted = claim("c", request(), constraints=[{"matchAttribute": PCIE_ROOT}])
    assert devices(allocate(wanted, slices=[resource_slice("n", [plain, gpu(1)])])) == [["gpu-1"]]


def test_admin_access_ignores_use_and_holds_nothing() -> None:
    held = [allocated(claim("other", request()), ("n", "gpu-0"))]
    admin = claim("admin", request(adminAccess=True, allocationMode="All"))
    assert devices(allocate(admin, claim("c", request(count=3)), held=held)) == [
        ["gpu-0", "gpu-1", "gpu-2", "gpu-3"],
        ["gpu-1", "gpu-2", "gpu-3"],
    ]
    watching = [allocated(claim("watch", request()), ("n", "gpu-0"), admin=True)]
    assert devices(allocate(claim("c", request()), held=watching)) == [["gpu-0"]]


TAINT = {"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("taint", "tolerations", "chosen"),
    [
        (TAINT, [], "gpu-1"),
        (TAINT, [{"key": "gpu.nvidia.com/xid", "operator": "Exists"}], "gpu-0"),
        (TAINT, [{"operator": "Exists"}], "gpu-0"),
        (TAINT, [{"key": "gpu.nvidia.com/xid", "value": "79"}], "gpu-0"),
        (TAINT, [{"key": "gpu.nvidia.com/xid", "value": "1"}], "gpu-1"),
        (TAINT, [{"operator": "Exists", "effect": "NoExecute"}], "gpu-1"),
        ({**TAINT, "effect": "NoExecute"}, [], "gpu-1"),
        ({**TAINT, "effect": "None"}, [], "gpu-0"),
    ],
)
def test_taints_and_tolerations(taint: Obj, tolerations: list[Obj], chosen: str) -> None:
    slices = [resource_slice("n", [gpu(0, taints=[taint]), gpu(1)])]
    assert devices(allocate(claim("c", request(tolerations=tolerations)), slices=slices)) == [[chosen]]


def test_asked_capacity_of_a_whole_device_is_a_minimum() -> None:
    small = gpu(0, capacity={"memory": {"value": "10Gi"}})
    slices = [resource_slice("n", [small, gpu(1)])]
    wanted = request(capacity={"requests": {"memory": "20Gi"}})
    assert devices(allocate(claim("c", wanted), slices=slices)) == [["gpu-1"]]
    text = reason(allocate(claim("c", wanted), slices=[resource_slice("n", [small])]))
    assert "1 too small (memory 10Gi, asked 20Gi)" in text


def test_at_most_32_devices_in_one_claim() -> None:
    slices = [resource_slice("n", [gpu(number) for number in range(40)])]
    assert devices(allocate(claim("c", request(count=32)), slices=slices)) == [[f"gpu-{n}" for n in range(32)]]
    text = reason(allocate(claim("c", request("a", count=20), request("b", count=13)), slices=slices))
    assert text == "claim demo/c: asks for 33 devices; a claim can hold at most 32"


def test_a_search_that_explodes_is_given_up() -> None:
    """Every set of 16 out of 32 is tried before the next claim: the real scheduler runs into its time limit here."""
    slices = [resource_slice("n", [gpu(number) for number in range(32)])]
    outcome = allocate(claim("a", request(count=16)), claim("b", request(count=17)), slices=slices)
    assert "took more than 200000 steps" in reason(outcome)
    hopeless = allocate(claim("a", request(count=16)), claim("b", request("x", "false")), slices=slices)
    assert reason(hopeless) == "claim demo/b, request x: 1 node: 32 devices exist, 32 fail selector `false`"


REASONS: list[tuple[str, dict[str, Any], str]] = [
    (
        "no class",
        {"class_name": "h100.example.com"},
        "claim demo/c, request gpu: there is no DeviceClass 'h100.example.com' (there are: gpu.nvidia.com)",
    ),
    (
        "too many",
        {"count": 5},
        "claim demo/c, request gpu: 1 node: 4 devices exist, 4 would fit, but 5 are asked per node",
    ),
]


@pytest.mark.parametrize(("_name", "fields", "expected"), REASONS)
def test_reasons(_name: str, fields: dict[str, Any], expected: str) -> None:
    assert reason(allocate(claim("c", request(**fields)))) == expected


def test_reason_counts_what_became_of_every_device() -> None:
    mig = gpu(9, attributes={"type": {"string": "mig"}})
    slices = [resource_slice("n", [mig, gpu(0, taints=[TAINT]), gpu(1), gpu(2), gpu(3)])]
    held = [allocated(claim("a", request()), ("n", "gpu-1")), allocated(claim("b", request()), ("n", "gpu-2"))]
    wanted = request("gpu", "device.attributes['gpu.nvidia.com'].uuid != 'GPU-3'")
    assert reason(allocate(claim("c", wanted), slices=slices, held=held)) == (
        "claim demo/c, request gpu: 1 node: 5 devices exist, "
        "1 fails the class's selector `device.driver == 'gpu.nvidia.com' && "
        "device.attributes['gpu.nvidia.com'].type == 'gpu'`, "
        "1 tainted gpu.nvidia.com/xid=79:NoSchedule without a toleration, "
        "1 fails selector `device.attributes['gpu.nvidia.com'].uuid != 'GPU-3'`, "
        "2 in use by claims demo/a, demo/b"
    )


def test_reasons_of_alternatives_are_told_one_by_one() -> None:
    prioritized = {"name": "gpu", "firstAvailable": [alternative("eight", count=8), alternative("mig", "false")]}
    assert reason(allocate(claim("c", prioritized))) == (
        "claim demo/c, request gpu: 1 node: gpu/eight: 4 devices exist, 4 would fit, but 8 are asked per node; "
        "gpu/mig: 4 devices exist, 4 fail selector `false`"
    )


def test_reasons_of_nodes_are_added_up() -> None:
    wanted = [parse_claim(claim("c", request("gpu", "false")))]
    slices = [resource_slice(node, [gpu(number) for number in range(8)]) for node in ("n0", "n1")]
    allocator = Allocator(ENGINE, Snapshot.from_objects(slices, [device_class()], []))
    failures = {name: allocator.allocate(Node(name), wanted) for name in ("n0", "n1")}
    text = explain({name: failure for name, failure in failures.items() if isinstance(failure, Failure)})
    assert text == "claim demo/c, request gpu: 2 nodes: 16 devices exist, 16 fail selector `false`"


def test_requests_that_compete() -> None:
    only_first = "device.attributes['gpu.nvidia.com'].uuid == 'GPU-0'"
    text = reason(allocate(claim("c", request("a", only_first), request("b", only_first))))
    assert text == "claim demo/c: its requests together need more devices than are free"


def test_a_selector_error_ends_the_scheduling_of_the_pod() -> None:
    outcome = allocate(claim("c", request("gpu", "device.attributes['gpu.nvidia.com'].index == 1")))
    assert isinstance(outcome, Failure)
    assert outcome.fatal
    assert reason(outcome) == (
        "request gpu: selector `device.attributes['gpu.nvidia.com'].index == 1` failed on device "
        "gpu.nvidia.com/n/gpu-0: no such key: index"
    )


def test_a_selector_that_does_not_compile_says_so() -> None:
    text = reason(allocate(claim("c", request("gpu", "device.name == 'gpu-0'"))))
    assert "undefined field 'name'" in text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"derivedAttributes": [{"name": "x"}]}, "derivedAttributes"),
        ({"allocationMode": "Some"}, "allocationMode 'Some'"),
    ],
)
def test_what_cannot_be_honoured_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        parse_claim(claim("c", request(**fields)))


def test_a_driver_beside_others_is_found_by_its_class() -> None:
    nic = {"name": "nic-0", "attributes": {"type": {"string": "nic"}}}
    slices = [resource_slice("n", [nic], name="nics", pool="nics", driver="nic.example.com", nodeName="n"), *FOUR]
    classes = [device_class(), device_class("nic", "device.driver == 'nic.example.com'")]
    outcome = allocate(claim("c", request("gpu"), request("nic", class_name="nic")), slices=slices, classes=classes)
    assert not isinstance(outcome, Failure)
    assert [str(result.device.id) for result in outcome[0].results] == [
        f"{DRIVER}/n/gpu-0",
        "nic.example.com/nics/nic-0",
    ]
