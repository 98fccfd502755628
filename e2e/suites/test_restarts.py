"""Plugin, controller and kubelet start again: running pods are not touched, and slices are written only when wiped."""

from __future__ import annotations

import pytest

from dra_driver.kube.interface import NODE_INVENTORIES, PODS, RESOURCE_SLICES, EventType, Obj
from e2e.clusters.interface import Ability
from e2e.install import CONTROLLER, NAMESPACE, PLUGIN
from e2e.kit.churn import churning
from e2e.kit.metrics import prepare_errors
from e2e.kit.pools import driver_slices, versions, wait_published
from e2e.kit.recording import recording
from e2e.kit.space import Space, container_ids
from e2e.kit.stage import Stage
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import Use, claim_spec, pod

_KUBELET_SECONDS = 60.0
_ROLLOUT_SECONDS = 120.0


@pytest.mark.last(10)
def test_controller_restart_writes_no_slice(stage: Stage, space: Space) -> None:
    before = versions(driver_slices(stage.api))
    with recording(stage.api, RESOURCE_SLICES) as slices:
        stage.kubectl.run("-n", NAMESPACE, "rollout", "restart", f"deployment/{CONTROLLER}")
        stage.driver.wait_rollout()
        stage.pods.wait_leader()
        check_new_pod(space)
    assert not slices.describe()
    assert versions(driver_slices(stage.api)) == before


@pytest.mark.last(20)
def test_plugin_restart_fails_no_prepare_and_writes_no_slice(stage: Stage, space: Space) -> None:
    space.template("one", claim_spec())
    space.pod(pod("bystander", Use(template="one")))
    before = space.wait_ready("bystander")["bystander"]
    held, published = space.devices_of("bystander"), versions(driver_slices(stage.api))
    with recording(stage.api, RESOURCE_SLICES) as slices, churning(space) as churn:
        stage.kubectl.run("-n", NAMESPACE, "rollout", "restart", f"daemonset/{PLUGIN}")
        stage.driver.wait_rollout()
        enough = churn.rounds + 2
        eventually(lambda: check_rounds(churn.rounds, enough), _ROLLOUT_SECONDS)
    assert not churn.problems
    assert not space.failed_prepares()
    assert not prepare_errors(stage)
    assert not slices.describe()
    assert versions(driver_slices(stage.api)) == published
    assert container_ids(space.pods()["bystander"]) == container_ids(before)
    assert space.devices_of("bystander") == held
    space.check_containers("bystander")


@pytest.mark.last(21)
def test_killed_plugin_comes_back_and_writes_no_slice(stage: Stage, space: Space) -> None:
    space.template("one", claim_spec())
    space.pod(pod("bystander", Use(template="one")))
    before = space.wait_ready("bystander")["bystander"]
    node = before["spec"]["nodeName"]
    old = stage.pods.plugin(node)
    with recording(stage.api, RESOURCE_SLICES) as slices:
        stage.api.delete(PODS, old["metadata"]["name"], NAMESPACE, grace_period_seconds=0)
        eventually(lambda: check_replaced(stage, node, old), _ROLLOUT_SECONDS)
        stage.driver.wait_rollout()
        check_new_pod(space, node)
    assert not slices.describe()
    assert container_ids(space.pods()["bystander"]) == container_ids(before)
    space.check_containers("bystander")


@pytest.mark.last(22)
def test_pods_deleted_while_the_plugin_is_away_are_cleaned_up(stage: Stage, space: Space) -> None:
    space.template("one", claim_spec())
    space.pod(pod("leaves", Use(template="one")))
    node = space.wait_ready("leaves")["leaves"]["spec"]["nodeName"]
    old = stage.pods.plugin(node)
    stage.api.delete(PODS, old["metadata"]["name"], NAMESPACE, grace_period_seconds=0)
    space.delete_pods("leaves")
    eventually(lambda: check_replaced(stage, node, old), _ROLLOUT_SECONDS)
    stage.driver.wait_rollout()
    stage.wait_clean()


@pytest.mark.hands(Ability.RESTART_KUBELET)
@pytest.mark.last(30)
def test_kubelet_restart_wipes_slices_and_proof_brings_them_back(stage: Stage, space: Space) -> None:
    node = stage.nodes[0]
    space.template("one", claim_spec())
    space.pod(pod("bystander", Use(template="one"), node=node))
    before = space.wait_ready("bystander")["bystander"]
    old = versions(driver_slices(stage.api, node))
    asked = stage.api.get(NODE_INVENTORIES, node)["spec"].get("challenge")
    with recording(stage.api, RESOURCE_SLICES, field_selector=f"spec.nodeName={node}") as slices:
        stage.cluster.restart_kubelet(node)
        eventually(lambda: check_wiped(stage, node, old), _KUBELET_SECONDS)
        wait_published(stage.api, [node], _KUBELET_SECONDS)
    assert slices.of(EventType.DELETED), "the kubelet deletes the slices of its node when it starts"
    assert slices.of(EventType.ADDED)
    inventory = stage.api.get(NODE_INVENTORIES, node)
    assert inventory["spec"]["challenge"] != asked, "slices must come back by a new proof only"
    assert inventory["status"]["answer"] == inventory["spec"]["challenge"]
    after = space.wait_ready("bystander")["bystander"]
    assert container_ids(after) == container_ids(before)
    space.check_containers("bystander")
    check_new_pod(space, node)
    assert not restarted(stage.pods.plugins())


def check_rounds(rounds: int, enough: int) -> None:
    if rounds < enough:
        raise NotYet(f"{rounds} pods came and went, {enough} are wanted")


def check_replaced(stage: Stage, node: str, old: Obj) -> None:
    if stage.pods.plugin(node)["metadata"]["uid"] == old["metadata"]["uid"]:
        raise NotYet(f"the plugin of {node} is still the one that was deleted")


def check_wiped(stage: Stage, node: str, old: dict[str, str]) -> None:
    """None of the slices that there were is left."""
    if left := old.keys() & versions(driver_slices(stage.api, node)).keys():
        raise NotYet(f"{len(left)} slices of {node} are still those from before the kubelet's start")


def check_new_pod(space: Space, node: str = "") -> None:
    space.template("fresh", claim_spec())
    space.pod(pod("fresh", Use(template="fresh"), node=node))
    space.wait_ready("fresh")
    space.check_containers("fresh")


def restarted(pods: list[Obj]) -> list[str]:
    """Containers that had to be started again."""
    return [
        f"{pod['metadata']['name']}/{status['name']}"
        for pod in pods
        for status in pod["status"]["containerStatuses"]
        if status["restartCount"]
    ]
