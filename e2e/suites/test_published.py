"""What the driver offers: every GPU of every node, in slices that belong to their node."""

from __future__ import annotations

import pytest

from dra_driver.kube.interface import NODE_INVENTORIES, NODES
from e2e.kit.pools import driver_slices, pool_of
from e2e.kit.space import Space
from e2e.kit.stage import Stage
from e2e.kit.workloads import Use, claim_spec, pod


def test_every_gpu_of_every_node_is_published(stage: Stage) -> None:
    assert stage.nodes, "no node has devices"
    for node in stage.nodes:
        machine = stage.api.get(NODE_INVENTORIES, node)["status"]["machine"]
        pool = pool_of(stage.api, node)
        assert pool is not None
        published = {device.attribute("gpu.nvidia.com/uuid") for device in pool.devices}
        assert {gpu["uuid"] for gpu in machine["gpus"] if not gpu.get("migInstances")} <= published


def test_slices_belong_to_their_node(stage: Stage) -> None:
    for node in stage.nodes:
        uid = stage.api.get(NODES, node)["metadata"]["uid"]
        for found in driver_slices(stage.api, node):
            owners = {owner["uid"] for owner in found["metadata"]["ownerReferences"]}
            assert owners == {uid}, f"{found['metadata']['name']} belongs to {owners}, node {node} is {uid}"


def test_the_inventory_says_that_the_plugin_is_registered(stage: Stage) -> None:
    for node in stage.nodes:
        status = stage.api.get(NODE_INVENTORIES, node)["status"]
        assert status["registration"]["registered"] is True
        conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
        assert conditions["KubeletRegistered"] == "True"


def test_every_node_serves_a_pod(stage: Stage, space: Space) -> None:
    space.template("one", claim_spec())
    for number, node in enumerate(stage.nodes):
        space.pod(pod(f"on-{number}", Use(template="one"), node=node))
    space.wait_ready(*(f"on-{number}" for number in range(len(stage.nodes))))
    for number, node in enumerate(stage.nodes):
        assert {result.pool for result in space.devices_of(f"on-{number}")} == {node}
        space.check_containers(f"on-{number}")


@pytest.mark.parametrize("device_class", ["gpu.nvidia.com", "mig.nvidia.com", "vfio.gpu.nvidia.com"])
def test_the_device_classes_are_there(stage: Stage, device_class: str) -> None:
    selectors = stage.kubectl.run(
        "get", "deviceclass", device_class, "-o", "jsonpath={.spec.selectors[*].cel.expression}"
    )
    assert "device.driver == 'gpu.nvidia.com'" in selectors
