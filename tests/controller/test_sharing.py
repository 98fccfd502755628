"""Shares by the device plugin's ConfigMap, on an embedded API: applied, changed, broken, removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from controller.app import Controller
from dra_driver.hardware.model import Machine
from dra_driver.kube.interface import (
    CONFIG_MAPS,
    NODES,
    Forbidden,
    KubeApi,
)
from tests.controller.sharing_cluster import BROKEN, FOUR, LABEL, MPS, NAME, TWO, Cluster, Meddled
from tests.controller.world import World


def test_the_config_map_of_tutorials_gives_each_gpu_four_shares(cluster: Cluster, a100: Machine) -> None:
    world = cluster.world
    world.add_node("n1", a100)
    cluster.start()
    world.published("n1", 8)
    cluster.apply(any=FOUR)
    cluster.shared("n1", 8, 4)
    device = world.device("n1", "gpu-0")
    assert device["allowMultipleAllocations"] is True
    assert device["capacity"]["memory"]["requestPolicy"] == {
        "default": "0",
        "validRange": {"max": "40Gi", "min": "0", "step": "1Mi"},
    }
    message = cluster.told("n1", "SharingInForce")
    assert message == (
        "nvidia.com/gpu: 4 shares of each of gpu-0, gpu-1, gpu-2, gpu-3, gpu-4, gpu-5, gpu-6, gpu-7 (TimeSlicing) "
        "(by gpu-operator/time-slicing-config, key any)"
    )
    assert cluster.condition("n1")["status"] == "True"
    world.wait(
        lambda: (
            {event["involvedObject"]["kind"] for event in world.events("SharingInForce")} == {"Node", "NodeInventory"}
        ),
        "an Event each on the Node and its inventory",
    )
    assert {event["type"] for event in world.events("SharingInForce")} == {"Normal"}
    assert cluster.in_force("n1")["source"] == "gpu-operator/time-slicing-config, key any"
    world.assert_quiet(0.5)


def test_what_is_in_force_is_known_before_slices_are_published_by_it(cluster: Cluster, a100: Machine) -> None:
    cluster.world.add_node("n1", a100)
    cluster.apply(any=FOUR)
    meddling = Meddled(cluster.world.api, before_slice=lambda _slice: seen.append(cluster.in_force("n1")))
    seen: list[Any] = []
    cluster.world.start_controller(meddling.api, plugin_config=NAME)
    cluster.shared("n1", 8, 4)
    in_force = {"source": f"{NAME}, key any", "resources": [RESOURCE_FOUR]}
    assert seen
    assert all(each == in_force for each in seen)


RESOURCE_FOUR = {
    "resource": "nvidia.com/gpu",
    "strategy": "TimeSlicing",
    "replicas": 4,
    "renamed": False,
    "onePerRequest": False,
}


def test_without_config_map_or_namespace_nothing_is_shared_and_nothing_said(world: World, a100: Machine) -> None:
    world.add_node("n1", a100)
    controller = world.start_controller(plugin_config=NAME)
    world.published("n1", 8)
    assert controller.ready_problem() is None
    world.assert_quiet(0.5)
    cluster = Cluster(world)
    assert cluster.condition("n1") == {}
    assert cluster.in_force("n1") is None
    assert world.slice_writes() == {"create": 1}
    cluster.apply(any=FOUR)  # the namespace was made meanwhile
    cluster.shared("n1", 8, 4)


def test_a_changed_and_a_removed_config_map(cluster: Cluster, a100: Machine) -> None:
    cluster.world.add_node("n1", a100)
    cluster.apply(any=FOUR)
    cluster.start()
    cluster.shared("n1", 8, 4)
    cluster.apply(any=TWO)
    cluster.shared("n1", 8, 2)
    cluster.remove()
    cluster.shared("n1", 0, 0)
    cluster.told("n1", "SharingNotConfigured")
    assert cluster.in_force("n1") is None
    assert "allowMultipleAllocations" not in cluster.world.device("n1", "gpu-0")
    cluster.world.assert_quiet()


def test_a_broken_one_leaves_what_was_in_force_also_over_a_restart(cluster: Cluster, a100: Machine) -> None:
    world = cluster.world
    world.add_node("n1", a100)
    cluster.apply(any=FOUR)
    controller = cluster.start()
    cluster.shared("n1", 8, 4)
    world.assert_quiet()
    before = world.slice_writes()
    cluster.apply(any=BROKEN)
    message = cluster.told("n1", "SharingConfigurationBroken")
    assert message.startswith(
        "ConfigMap gpu-operator/time-slicing-config, key any: sharing.timeSlicing.resources[0].replicas: "
        "must be at least 2, not 1; what was in force stays: by gpu-operator/time-slicing-config, key any; "
        "nvidia.com/gpu: 4 shares of each of gpu-0"
    )
    assert cluster.condition("n1")["status"] == "False"
    assert {event["type"] for event in world.events("SharingConfigurationBroken")} == {"Warning"}
    world.assert_quiet()
    world.stop_controller(controller)
    writes = world.api.writes()
    again = cluster.start()
    world.wait(lambda: again.metrics.registry.get_sample_value("gpu_dra_controller_pools") == 1)
    world.assert_quiet(0.3)
    assert world.api.writes() == writes
    assert world.slice_writes() == before
    assert Counter(cluster.shares("n1").values()) == {"4": 8}
    cluster.apply(any=TWO)
    cluster.shared("n1", 8, 2)
    cluster.told("n1", "SharingInForce")


def test_a_broken_one_on_a_new_node_shares_nothing_there(cluster: Cluster, a100: Machine) -> None:
    cluster.world.add_node("n1", a100)
    cluster.apply(any="sharing: {timeSlcing: {}}")
    cluster.start()
    cluster.world.published("n1", 8)
    message = cluster.told("n1", "SharingConfigurationBroken")
    assert "key any: sharing.timeSlcing: unknown field, did you mean timeSlicing?" in message
    assert message.endswith("nothing is shared by it")
    assert cluster.shares("n1") == {}


def test_the_label_chooses_among_several(cluster: Cluster, a100: Machine, t4: Machine) -> None:
    cluster.world.add_node("n1", a100)
    cluster.world.add_node("n2", t4)
    cluster.apply(four=FOUR, two=TWO)
    cluster.start()
    cluster.world.published("n1", 8)
    cluster.world.published("n2", 4)
    cluster.label("n1", "four")
    cluster.label("n2", "two")
    cluster.shared("n1", 8, 4)
    cluster.shared("n2", 4, 2)
    cluster.label("n1", "two")
    cluster.shared("n1", 8, 2)
    cluster.label("n1", "fours")
    message = cluster.told("n1", "SharingConfigurationBroken")
    assert f'node label {LABEL}: the ConfigMap has no key "fours", did you mean four?' in message
    assert "what was in force stays: by gpu-operator/time-slicing-config, key two" in message
    cluster.world.assert_quiet()
    assert Counter(cluster.shares("n1").values()) == {"2": 8}
    cluster.label("n1", None)
    cluster.shared("n1", 0, 0)
    assert cluster.told("n1", "SharingNotConfigured") == (
        "ConfigMap gpu-operator/time-slicing-config has the keys four, two, and nothing says which of them is for this "
        f"node: set its label {LABEL}, or call one default"
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "ConfigMap gpu-operator/time-slicing-config is empty"),
        ({"any": "version: v1"}, "ConfigMap gpu-operator/time-slicing-config, key any asks for no sharing"),
    ],
)
def test_a_config_map_that_asks_for_nothing_is_told(
    cluster: Cluster, a100: Machine, data: Mapping[str, str], words: str
) -> None:
    cluster.world.add_node("n1", a100)
    cluster.apply(**data)
    cluster.start()
    assert cluster.told("n1", "SharingNotConfigured") == words
    assert cluster.condition("n1")["status"] == "False"
    cluster.remove()
    cluster.world.wait(
        lambda: cluster.condition("n1")["message"] == "there is no ConfigMap gpu-operator/time-slicing-config"
    )


def test_a_name_that_stands_for_nothing_shares_nothing_and_is_told(cluster: Cluster, a100: Machine) -> None:
    cluster.world.add_node("n1", a100)
    cluster.apply(any=FOUR.replace("nvidia.com/gpu", "nvidia.com/gpus"))
    cluster.start()
    message = cluster.told("n1", "SharingNotInForce")
    assert message.startswith("nothing is shared by gpu-operator/time-slicing-config, key any. ")
    assert "nvidia.com/gpus stands for no device here" in message
    assert cluster.condition("n1")["status"] == "False"
    assert {event["type"] for event in cluster.world.events("SharingNotInForce")} == {"Warning"}


def test_what_no_device_can_have_leaves_what_was_in_force(cluster: Cluster, a100: Machine) -> None:
    cluster.world.add_node("n1", a100)
    cluster.apply(any=FOUR)
    cluster.start()
    cluster.shared("n1", 8, 4)
    cluster.apply(any=MPS.replace("replicas: 4", "replicas: 100"))
    message = cluster.told("n1", "SharingConfigurationRefused")
    assert "an MPS server on Ampere takes 48 clients, not 100" in message
    assert "what was in force stays: by gpu-operator/time-slicing-config, key any; nvidia.com/gpu: 4 shares" in message
    assert cluster.condition("n1")["status"] == "False"
    cluster.world.assert_quiet()
    assert Counter(cluster.shares("n1").values()) == {"4": 8}


def test_a_node_that_only_its_kubelet_writes_is_not_looked_at_again(cluster: Cluster, a100: Machine) -> None:
    world = cluster.world
    world.add_node("n1", a100)
    cluster.apply(any=FOUR)
    controller = cluster.start()
    cluster.shared("n1", 8, 4)
    world.assert_quiet()
    looks = reconciles(controller)
    for number in range(3):
        world.api.patch(NODES, "n1", {"metadata": {"labels": {"heartbeat": str(number)}}})
    cluster.label("n1", "any")
    world.wait(lambda: reconciles(controller) > looks)
    world.assert_quiet()
    assert reconciles(controller) == looks + 1


def reconciles(controller: Controller) -> float:
    name = "gpu_dra_controller_reconcile_duration_seconds_count"
    return controller.metrics.registry.get_sample_value(name) or 0.0


# -- without the right ------------------------------------------------------------------------------------------------


class WithoutRight:
    """The API as one sees it who may not read ConfigMaps."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self.may_read = False
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._api, name)
        if name not in ("list", "watch"):
            return method

        def call(resource: Any, *arguments: Any, **options: Any) -> Any:
            if resource == CONFIG_MAPS and not self.may_read:
                self.refused += 1
                raise Forbidden('configmaps "time-slicing-config" is forbidden')
            return method(resource, *arguments, **options)

        return call


def test_without_the_right_everything_else_works_and_what_was_in_force_stays(cluster: Cluster, a100: Machine) -> None:
    world = cluster.world
    world.add_node("n1", a100)
    cluster.apply(any=FOUR)
    first = cluster.start()
    cluster.shared("n1", 8, 4)
    world.assert_quiet()
    world.stop_controller(first)
    api: Any = WithoutRight(world.api)
    controller = world.start_controller(api, plugin_config=NAME)
    message = cluster.told("n1", "SharingConfigurationUnreadable")
    assert 'cannot be read: configmaps "time-slicing-config" is forbidden; let the controller list and watch' in message
    assert controller.ready_problem() is None
    assert Counter(cluster.shares("n1").values()) == {"4": 8}
    world.add_node("n2", a100)
    world.published("n2", 8)
    world.wait(lambda: api.refused >= 2, "another try")
    world.assert_quiet(0.3)
    assert api.refused < 10
    api.may_read = True
    cluster.shared("n2", 8, 4)
    cluster.told("n1", "SharingInForce")


# -- draining ---------------------------------------------------------------------------------------------------------
