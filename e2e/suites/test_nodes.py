"""Nodes that come, go and start again."""

from __future__ import annotations

import pytest

from dra_driver.kube.interface import (
    NODE_INVENTORIES,
    NODES,
    PODS,
    RESOURCE_SLICES,
    ApiError,
    EventType,
    NotFound,
    Obj,
)
from e2e.clusters.interface import Ability
from e2e.kit.ghost import ghost_node
from e2e.kit.node_files import read_files
from e2e.kit.pools import driver_slices, gpus, wait_published
from e2e.kit.recording import recording
from e2e.kit.space import Space, is_ready, state, unique_name
from e2e.kit.stage import Stage
from e2e.kit.waiting import NotYet, eventually, holds_for
from e2e.kit.workloads import Use, claim_spec, pod

_COLLECTED_SECONDS = 60.0
_BACK_SECONDS = 180.0


@pytest.mark.hands(Ability.RUN_ON_NODE)  # a Node without a machine is not for somebody else's cluster
def test_slices_need_proof_and_go_with_their_node(stage: Stage) -> None:
    real = stage.nodes[0]
    with ghost_node(stage.api, unique_name("ghost"), real) as ghost:
        challenge = ghost.challenge()
        holds_for(lambda: check_no_slices(stage, ghost.name), 1.0)
        ghost.answer("not-the-challenge")
        holds_for(lambda: check_no_slices(stage, ghost.name), 1.0)
        ghost.answer(challenge)
        wait_published(stage.api, [ghost.name], 30)
        assert len(gpus(stage.api, ghost.name)) == len(gpus(stage.api, real))
        ghost.delete()
        eventually(lambda: check_collected(stage, ghost.name), _COLLECTED_SECONDS)


@pytest.mark.hands(Ability.REBOOT_NODE)
@pytest.mark.last(60)
@pytest.mark.timeout(400, func_only=True)
def test_reboot(stage: Stage, space: Space) -> None:
    node = stage.nodes[-1]
    space.claim("mine", claim_spec())
    space.pod(pod("survivor", Use(claim="mine"), node=node))
    before = space.wait_ready("survivor")["survivor"]
    held = space.devices_of("survivor")
    claim = space.claims()["mine"]["metadata"]["uid"]
    stage.cluster.reboot(node)
    eventually(lambda: check_started_again(space, before), _BACK_SECONDS)
    assert space.devices_of("survivor") == held, "an allocated claim keeps its device over a reboot"
    space.check_containers("survivor")
    if stage.can(Ability.RUN_ON_NODE):
        assert claim in read_files(stage.cluster, node).cdi, (
            "the folder is emptied by a reboot and must be filled again"
        )
    stage.driver.wait()
    check_new_pod(space, node)


@pytest.mark.hands(Ability.RESTART_KUBELET)
@pytest.mark.last(70)
@pytest.mark.timeout(400, func_only=True)
def test_deleted_node_takes_its_slices_along_and_comes_back_with_them(stage: Stage, space: Space) -> None:
    node = stage.nodes[-1]
    old = stage.api.get(NODES, node)["metadata"]["uid"]
    inventory = stage.api.get(NODE_INVENTORIES, node)["metadata"]["uid"]
    with recording(stage.api, RESOURCE_SLICES, field_selector=f"spec.nodeName={node}") as slices:
        stage.api.delete(NODES, node)
        eventually(lambda: check_collected(stage, node, inventory), _COLLECTED_SECONDS)
        stage.cluster.restart_kubelet(node)
        eventually(lambda: check_new_node(stage, node, old), _BACK_SECONDS)
        wait_published(stage.api, [node], _BACK_SECONDS)
    assert slices.of(EventType.DELETED)
    for found in driver_slices(stage.api, node):
        owner = stage.api.get(NODES, node)["metadata"]["uid"]
        assert [reference["uid"] for reference in found["metadata"]["ownerReferences"]] == [owner]
    stage.driver.wait()
    check_new_pod(space, node)


def check_no_slices(stage: Stage, node: str) -> None:
    found = driver_slices(stage.api, node)
    assert not found, f"slices of {node} were published without proof"


def check_collected(stage: Stage, node: str, inventory: str = "") -> None:
    """No slice of the node is left, and its inventory (with that UID, when one is given) is gone."""
    if found := driver_slices(stage.api, node):
        raise NotYet(f"{len(found)} slices of the deleted node {node} are still there")
    try:
        left = stage.api.get(NODE_INVENTORIES, node)
    except NotFound:
        return
    if not inventory or left["metadata"]["uid"] == inventory:
        raise NotYet(f"NodeInventory {node} of the deleted node is still there")


def check_new_node(stage: Stage, node: str, old: str) -> None:
    try:
        found = stage.api.get(NODES, node)
    except NotFound:
        raise NotYet(f"node {node} has not registered again") from None
    if found["metadata"]["uid"] == old or not is_ready(found):
        raise NotYet(f"node {node} is not Ready again")


def check_started_again(space: Space, before: Obj) -> None:
    """The same pod, in new containers."""
    try:
        found = space.api.get(PODS, "survivor", space.namespace)
    except ApiError as error:
        # On a cluster of one machine the API server was rebooted as well; at first it refuses connections, then rights.
        raise NotYet(f"the API server is not back: {error}") from error
    assert found["metadata"]["uid"] == before["metadata"]["uid"], "the pod was replaced"
    restarts = found["status"]["containerStatuses"][0]["restartCount"]
    if not restarts or not is_ready(found):
        raise NotYet(f"the pod is not back after the reboot, {restarts} restarts: {state(found)}")


def check_new_pod(space: Space, node: str) -> None:
    space.template("one", claim_spec())
    space.pod(pod("afterwards", Use(template="one"), node=node))
    space.wait_ready("afterwards")
    space.check_containers("afterwards")
