"""What the driver's service accounts may not do, tried with tokens as the driver's own pods have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dra_driver.kube.cluster import ClusterApi
from dra_driver.kube.interface import (
    NODE_INVENTORIES,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    ApiError,
    Forbidden,
    Obj,
    Resource,
)
from dra_driver.kube.resources import CLUSTER_ROLES, DAEMON_SETS, SECRETS
from e2e.install import CONTROLLER, NAMESPACE, PLUGIN
from e2e.kit.access import as_account, may
from e2e.kit.expected import DRIVER
from e2e.kit.pools import driver_slices
from e2e.kit.space import unique_name
from e2e.kit.stage import Stage

_WRITING = ("create", "update", "patch", "delete", "deletecollection")


@pytest.fixture
def node(stage: Stage) -> str:
    return stage.nodes[0]


@pytest.fixture
def plugin(stage: Stage, node: str, tmp_path: Path) -> ClusterApi:
    """The API as the plugin of ``node`` sees it."""
    return as_account(stage.kubectl, tmp_path, NAMESPACE, PLUGIN, stage.pods.plugin(node))


@pytest.fixture
def other_inventory(stage: Stage) -> Iterator[str]:
    """A NodeInventory that is not the plugin's."""
    name = unique_name("other-node")
    stage.api.create(NODE_INVENTORIES, {"metadata": {"name": name}, "spec": {}})
    yield name
    stage.api.delete(NODE_INVENTORIES, name)


def test_plugin_cannot_create_a_slice(plugin: ClusterApi, node: str) -> None:
    with pytest.raises(Forbidden, match=PLUGIN):
        plugin.create(RESOURCE_SLICES, forged_slice(node), dry_run=True)


def test_plugin_cannot_change_or_delete_a_slice(stage: Stage, plugin: ClusterApi, node: str) -> None:
    found = driver_slices(stage.api, node)[0]
    with pytest.raises(Forbidden, match=PLUGIN):
        plugin.update(RESOURCE_SLICES, found, dry_run=True)
    with pytest.raises(Forbidden, match=PLUGIN):
        plugin.delete(RESOURCE_SLICES, found["metadata"]["name"])
    assert driver_slices(stage.api, node)[0]["metadata"]["uid"] == found["metadata"]["uid"]


def test_plugin_cannot_write_another_nodes_inventory(plugin: ClusterApi, node: str, other_inventory: str) -> None:
    refused = f"the plugin of node {node} may write NodeInventory {node} only, not {other_inventory}"
    with pytest.raises(ApiError, match=refused):
        plugin.patch(NODE_INVENTORIES, other_inventory, {"status": {"answer": "x"}}, subresource="status")
    with pytest.raises(ApiError, match=refused):
        plugin.patch(NODE_INVENTORIES, other_inventory, {"metadata": {"labels": {"forged": "true"}}})
    with pytest.raises(ApiError, match="may write NodeInventory"):
        plugin.create(NODE_INVENTORIES, {"metadata": {"name": unique_name("forged")}, "spec": {}}, dry_run=True)


def test_plugin_may_write_the_status_of_its_own_inventory(plugin: ClusterApi, node: str) -> None:
    echo = plugin.patch(NODE_INVENTORIES, node, {"status": {"answer": "probe"}}, subresource="status", dry_run=True)
    assert echo["status"]["answer"] == "probe"


def test_plugin_cannot_set_its_own_challenge(plugin: ClusterApi, node: str) -> None:
    with pytest.raises(ApiError, match="spec of a NodeInventory is the controller's"):
        plugin.patch(NODE_INVENTORIES, node, {"spec": {"challenge": "forged"}}, dry_run=True)


def test_a_token_that_names_no_node_writes_no_inventory(stage: Stage, node: str, tmp_path: Path) -> None:
    unbound = as_account(stage.kubectl, tmp_path, NAMESPACE, PLUGIN)
    with pytest.raises(ApiError, match="names no node"):
        unbound.patch(NODE_INVENTORIES, node, {"status": {"answer": "x"}}, subresource="status", dry_run=True)


@pytest.mark.parametrize("account", [PLUGIN, CONTROLLER])
@pytest.mark.parametrize(
    ("resource", "verbs"),
    [
        (SECRETS, ("get", "list", *_WRITING)),
        (PODS, _WRITING),
        (NODES, _WRITING),
        (DAEMON_SETS, _WRITING),
        (CLUSTER_ROLES, _WRITING),
        (RESOURCE_CLAIMS, _WRITING),
    ],
    ids=lambda value: value.plural if isinstance(value, Resource) else "",
)
def test_accounts_have_no_more_than_they_need(
    stage: Stage, account: str, resource: Resource, verbs: tuple[str, ...]
) -> None:
    allowed = [verb for verb in verbs if allows(stage, account, verb, resource)]
    assert not allowed, f"{account} may {', '.join(allowed)} {resource.plural}"


def test_only_the_controller_writes_slices(stage: Stage) -> None:
    assert not [verb for verb in _WRITING if allows(stage, PLUGIN, verb, RESOURCE_SLICES)]
    assert allows(stage, CONTROLLER, "create", RESOURCE_SLICES)


def allows(stage: Stage, account: str, verb: str, resource: Resource) -> bool:
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"]
    return may(stage.api, f"system:serviceaccount:{NAMESPACE}:{account}", groups, verb, resource)


def forged_slice(node: str) -> Obj:
    spec = {
        "driver": DRIVER,
        "nodeName": node,
        "pool": {"name": f"{node}-forged", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "gpu-0"}],
    }
    return {"metadata": {"name": "e2e-forged"}, "spec": spec}
