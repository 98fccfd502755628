"""Which slices count, whether a pool is whole, and the order of its devices."""

from __future__ import annotations

from typing import Any

import pytest

from dra_driver.allocator.model import DeviceId, Obj
from dra_driver.allocator.nodes import Node, matches_selector
from dra_driver.allocator.pools import pools_from_slices
from dra_driver.quantity import Quantity
from tests.allocator.builders import DRIVER, gpu, resource_slice


def names(slices: list[Obj]) -> list[str]:
    return [device.id.device for pool in pools_from_slices(slices) for device in pool.devices]


def test_devices_come_by_driver_pool_slice_name_and_position() -> None:
    slices = [
        resource_slice("b", [gpu(7)]),
        resource_slice("a", [gpu(2)], name="00001-a", count=2),
        resource_slice("a", [gpu(1), gpu(0)], name="00000-a", count=2),
    ]
    assert names(slices) == ["gpu-1", "gpu-0", "gpu-2", "gpu-7"]


def test_only_the_newest_generation_counts() -> None:
    slices = [resource_slice("a", [gpu(0)], name="old", generation=1), resource_slice("a", [gpu(1)], generation=2)]
    (pool,) = pools_from_slices(slices)
    assert (pool.generation, pool.problem, names(slices)) == (2, "", ["gpu-1"])


def test_a_pool_with_a_missing_slice_is_incomplete() -> None:
    (pool,) = pools_from_slices([resource_slice("a", [gpu(0)], count=2)])
    assert pool.problem == "incomplete: 1 of 2 slices are there"


def test_a_device_name_twice_makes_the_pool_invalid() -> None:
    (pool,) = pools_from_slices([resource_slice("a", [gpu(0), gpu(0)])])
    assert pool.problem == "invalid: device name gpu-0 appears twice"


def test_bare_names_stand_under_the_drivers_domain() -> None:
    (pool,) = pools_from_slices([resource_slice("a", [gpu(3)])])
    (device,) = pool.devices
    assert device.id == DeviceId(DRIVER, "a", "gpu-3")
    assert device.attribute(f"{DRIVER}/uuid") == "GPU-3"
    assert device.attribute("resource.kubernetes.io/pcieRoot") == "pci0000:01"
    assert device.attribute(f"{DRIVER}/nope") is None
    assert device.capacity[DRIVER]["memory"] == Quantity.parse("40Gi")


def test_a_null_device_list_is_an_empty_pool() -> None:
    slices = [resource_slice("a", [])]
    slices[0]["spec"]["devices"] = None
    (pool,) = pools_from_slices(slices)
    assert pool.devices == ()
    assert pool.on(Node("a")) is not None


SELECTOR = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["yes"]}]}]}


@pytest.mark.parametrize(
    ("spec", "here", "there"),
    [
        ({"nodeName": "here"}, True, False),
        ({"allNodes": True}, True, True),
        ({"nodeSelector": SELECTOR}, True, False),
    ],
)
def test_which_nodes_a_slice_reaches(spec: dict[str, Any], here: bool, there: bool) -> None:
    (pool,) = pools_from_slices([resource_slice("x", [gpu(0)], **spec)])
    assert (pool.on(Node("here", {"gpu": "yes"})) is not None) is here
    assert (pool.on(Node("there")) is not None) is there


def test_per_device_node_selection() -> None:
    devices = [gpu(0, nodeName="here"), gpu(1, nodeName="there"), gpu(2, allNodes=True)]
    (pool,) = pools_from_slices([resource_slice("x", devices, perDeviceNodeSelection=True)])
    seen = pool.on(Node("here"))
    assert seen is not None
    assert [device.id.device for device in seen.devices] == ["gpu-0", "gpu-2"]


@pytest.mark.parametrize(
    ("requirement", "holds"),
    [
        ({"key": "zone", "operator": "In", "values": ["a", "b"]}, True),
        ({"key": "zone", "operator": "NotIn", "values": ["a"]}, False),
        ({"key": "nope", "operator": "NotIn", "values": ["a"]}, True),
        ({"key": "zone", "operator": "Exists"}, True),
        ({"key": "zone", "operator": "DoesNotExist"}, False),
        ({"key": "gpus", "operator": "Gt", "values": ["7"]}, True),
        ({"key": "gpus", "operator": "Lt", "values": ["8"]}, False),
        ({"key": "zone", "operator": "Gt", "values": ["1"]}, False),
    ],
)
def test_node_selector_operators(requirement: Obj, holds: bool) -> None:
    node = Node("n", {"zone": "a", "gpus": "8"})
    assert matches_selector({"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}, node) is holds


def test_node_selector_terms_are_alternatives_and_an_empty_one_matches_nothing() -> None:
    by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}
    assert matches_selector({"nodeSelectorTerms": [{}, by_name]}, Node("n"))
    assert not matches_selector({"nodeSelectorTerms": [{}]}, Node("n"))
