"""The allocation as it is written: measured on kube-scheduler 1.37."""

from __future__ import annotations

from typing import Any

import pytest

from dra_driver.allocator.allocate import Allocator, Snapshot
from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.allocator.model import Obj
from dra_driver.allocator.nodes import Node
from dra_driver.allocator.parse import parse_claim
from dra_driver.allocator.reasons import Failure
from dra_driver.allocator.status import allocation_status
from tests.allocator.builders import DRIVER, alternative, claim, device_class, gpu, request, resource_slice, share_ids

ENGINE = CelEngine()
NOW = "2026-11-23T08:03:30Z"


def opaque(name: str) -> Obj:
    return {"opaque": {"driver": DRIVER, "parameters": {"kind": name}}}


def allocate(wanted: Obj, slices: list[Obj] | None = None, **class_spec: Any) -> Obj:
    slices = slices or [resource_slice("n", [gpu(number) for number in range(4)])]
    snapshot = Snapshot.from_objects(slices, [device_class(**class_spec)], [])
    outcome = Allocator(ENGINE, snapshot).allocate(Node("n", {"gpu": "yes"}), [parse_claim(wanted)])
    assert not isinstance(outcome, Failure)
    return allocation_status(outcome[0], "n", NOW, share_ids())


def test_a_plain_allocation() -> None:
    assert allocate(claim("c", request())) == {
        "devices": {"results": [{"request": "gpu", "driver": DRIVER, "pool": "n", "device": "gpu-0"}]},
        "nodeSelector": {
            "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]
        },
        "allocationTimestamp": NOW,
    }


def test_admin_access_and_tolerations_are_copied_into_the_results() -> None:
    toleration = {"key": "x", "operator": "Exists", "tolerationSeconds": 5}
    status = allocate(claim("c", request(adminAccess=True, tolerations=[toleration])))
    (result,) = status["devices"]["results"]
    assert result["adminAccess"] is True
    assert result["tolerations"] == [toleration]


def test_class_configuration_comes_before_the_claims() -> None:
    wanted = claim("c", request(), config=[opaque("FromTheClaim")])
    assert allocate(wanted, config=[opaque("FromTheClass")])["devices"]["config"] == [
        {"source": "FromClass", **opaque("FromTheClass")},
        {"source": "FromClaim", **opaque("FromTheClaim")},
    ]


@pytest.mark.parametrize(
    ("requests", "written"),
    [
        (["a", "b"], {}),
        (["a"], {"requests": ["a"]}),
        ([], {}),
    ],
)
def test_requests_are_left_out_when_they_cover_all(requests: list[str], written: Obj) -> None:
    wanted = claim("c", request("a"), request("b"), config=[{**opaque("X"), "requests": requests}])
    assert allocate(wanted)["devices"]["config"] == [{"source": "FromClaim", **written, **opaque("X")}]


def test_class_configuration_names_its_request() -> None:
    config = allocate(claim("c", request("a"), request("b")), config=[opaque("X")])["devices"]["config"]
    assert [entry["requests"] for entry in config] == [["a"], ["b"]]


def test_configuration_of_alternatives_that_were_not_chosen_is_dropped() -> None:
    prioritized = {"name": "gpu", "firstAvailable": [alternative("big", "false"), alternative("any")]}
    wanted = claim(
        "c",
        prioritized,
        request("other"),
        config=[
            {**opaque("Big"), "requests": ["gpu/big"]},
            {**opaque("Any"), "requests": ["gpu/big", "gpu/any"]},
            {**opaque("Parent"), "requests": ["gpu"]},
        ],
    )
    status = allocate(wanted)
    assert status["devices"]["results"][0]["request"] == "gpu/any"
    assert status["devices"]["config"] == [
        {"source": "FromClaim", "requests": ["gpu/any"], **opaque("Any")},
        {"source": "FromClaim", "requests": ["gpu"], **opaque("Parent")},
    ]


def test_devices_of_a_node_selector_carry_its_terms() -> None:
    term = {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}
    slices = [resource_slice("x", [gpu(0)], nodeSelector={"nodeSelectorTerms": [term]})]
    assert allocate(claim("c", request()), slices)["nodeSelector"] == {"nodeSelectorTerms": [term]}


def test_devices_of_all_nodes_leave_the_selector_out() -> None:
    slices = [resource_slice("x", [gpu(0)], allNodes=True)]
    assert "nodeSelector" not in allocate(claim("c", request()), slices)
