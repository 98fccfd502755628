"""Shares by the device plugin's ConfigMap, on an embedded API: applied, changed, broken, removed, and drained."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from api.claim_config import SharingStrategy
from controller.app import Controller
from controller.dry_run import dry_run
from controller.plugin_config import ObjectName
from dra_driver.devices.policy import DevicePolicy
from dra_driver.devices.selector import GpuSelector
from dra_driver.devices.sharing import Fractions, Replicas, SharingPolicy, SharingRule
from dra_driver.hardware.model import Machine
from dra_driver.kube.interface import (
    CONFIG_MAPS,
    NAMESPACES,
    NODE_INVENTORIES,
    NODES,
    RESOURCE_SLICES,
    Forbidden,
    KubeApi,
    Obj,
)
from tests.controller.world import DRIVER, World

NAME = ObjectName("gpu-operator", "time-slicing-config")
LABEL = "nvidia.com/device-plugin.config"
# The ConfigMap that tutorials have.
FOUR = """version: v1
sharing:
  timeSlicing:
    renameByDefault: false
    resources:
    - name: nvidia.com/gpu
      replicas: 4  # Each physical GPU appears as 4 resources
"""
TWO = FOUR.replace("replicas: 4", "replicas: 2")
MPS = FOUR.replace("timeSlicing", "mps")
BROKEN = FOUR.replace("replicas: 4", "replicas: 1")
TAINT = "gpu.nvidia.com/unavailable"
TIME_SLICING = SharingStrategy.TIME_SLICING


class Cluster:
    """A world with the ConfigMap's namespace, and what tests of sharing look at."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.api.create(NAMESPACES, {"metadata": {"name": NAME.namespace}})

    def start(self, **options: Any) -> Controller:
        return self.world.start_controller(plugin_config=NAME, **options)

    def apply(self, **data: str) -> None:
        body = {"metadata": {"name": NAME.name, "namespace": NAME.namespace}, "data": data}
        if self.world.api.list(CONFIG_MAPS, NAME.namespace).items:
            self.world.api.update(CONFIG_MAPS, body)
        else:
            self.world.api.create(CONFIG_MAPS, body)

    def remove(self) -> None:
        self.world.api.delete(CONFIG_MAPS, NAME.name, NAME.namespace)

    def label(self, node: str, value: str | None) -> None:
        self.world.api.patch(NODES, node, {"metadata": {"labels": {LABEL: value}}})

    def shares(self, node: str) -> dict[str, str]:
        """By device, of those that have some."""
        devices = (device for found in self.world.slices(node) for device in found["spec"].get("devices") or ())
        return {
            device["name"]: device["capacity"]["shares"]["value"]
            for device in devices
            if "shares" in device["capacity"]
        }

    def shared(self, node: str, count: int, replicas: int) -> None:
        wanted = Counter({str(replicas): count}) if count else Counter()
        self.world.wait(
            lambda: Counter(self.shares(node).values()) == wanted, f"{count} devices with {replicas} shares on {node}"
        )

    def in_force(self, node: str) -> Any:
        return (self.world.api.get(NODE_INVENTORIES, node).get("spec") or {}).get("sharing")

    def condition(self, node: str) -> Obj:
        conditions = self.world.api.get(NODE_INVENTORIES, node)["status"].get("conditions") or []
        return next((found for found in conditions if found["type"] == "SharingConfigured"), {})

    def told(self, node: str, reason: str) -> str:
        self.world.wait(lambda: self.condition(node).get("reason") == reason, f"condition {reason} on {node}")
        self.world.wait(lambda: self.world.events(reason), f"an Event {reason}")
        return str(self.condition(node)["message"])

    def tainted(self, node: str, device: str) -> bool:
        return any(taint["key"] == TAINT for taint in self.world.device(node, device).get("taints") or ())


@pytest.fixture
def cluster(world: World) -> Cluster:
    return Cluster(world)


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


class Meddled:
    """An API on which something is done before each real write of a slice."""

    def __init__(self, api: Any, *, before_slice: Callable[[Obj], None]) -> None:
        class Api:
            def __getattr__(self, name: str) -> Any:
                method = getattr(api, name)
                if name not in ("create", "update"):
                    return method

                def call(resource: Any, obj: Obj, **options: Any) -> Any:
                    if resource == RESOURCE_SLICES and not options.get("dry_run"):
                        before_slice(obj)
                    return method(resource, obj, **options)

                return call

        self.api: Any = Api()


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


@pytest.mark.parametrize(
    ("after", "free"),
    [
        ({"any": TWO}, "2"),
        ({}, None),
        ({"any": MPS}, "4"),
        ({"any": FOUR.replace("Default: false", "Default: true")}, "4"),
    ],
    ids=["fewer", "none", "mps", "renamed"],
)
def test_a_share_in_use_is_never_taken_and_no_other_is_given_until_it_is_free(
    cluster: Cluster, a100: Machine, after: Mapping[str, str], free: str | None
) -> None:
    world = cluster.world
    world.add_node("n1", a100)
    cluster.apply(any=FOUR)
    cluster.start()
    cluster.shared("n1", 8, 4)
    first, second = world.allocate("n1", "gpu-0", share=True), world.allocate("n1", "gpu-0", share=True)
    as_it_was = world.device("n1", "gpu-0")
    cluster.apply(**after)
    world.wait(lambda: cluster.tainted("n1", "gpu-0"), "the device to drain")
    drained = world.device("n1", "gpu-0")
    drained.pop("taints")
    assert drained == as_it_was
    world.wait(lambda: "gpu-0 stays as before until the claims on it have ended" in cluster.condition("n1")["message"])
    assert "shares of each of gpu-0" not in cluster.condition("n1")["message"]
    world.wait(lambda: cluster.shares("n1").get("gpu-1") == free)
    assert not cluster.tainted("n1", "gpu-1")
    world.deallocate(first)
    world.assert_quiet()
    assert cluster.tainted("n1", "gpu-0")
    world.deallocate(second)
    world.wait(lambda: not cluster.tainted("n1", "gpu-0"), "the device to be offered anew")
    assert cluster.shares("n1").get("gpu-0") == free
    world.wait(lambda: "as before" not in cluster.condition("n1")["message"])


def test_a_whole_gpu_in_use_does_not_become_shareable_until_it_is_free(cluster: Cluster, a100: Machine) -> None:
    world = cluster.world
    world.add_node("n1", a100)
    cluster.start()
    world.published("n1", 8)
    claim = world.allocate("n1", "gpu-0")
    cluster.apply(any=FOUR)
    cluster.shared("n1", 7, 4)
    assert "allowMultipleAllocations" not in world.device("n1", "gpu-0")
    assert cluster.tainted("n1", "gpu-0")
    world.deallocate(claim)
    cluster.shared("n1", 8, 4)
    assert not cluster.tainted("n1", "gpu-0")


def test_a_claim_that_got_a_gpu_otherwise_than_it_is_offered_now_has_it_alone(cluster: Cluster, a100: Machine) -> None:
    """It was allocated by the slices of a moment before."""
    world = cluster.world
    world.add_node("n1", a100)
    cluster.apply(any=FOUR)
    cluster.start()
    cluster.shared("n1", 8, 4)
    whole = world.allocate("n1", "gpu-0")
    world.wait(lambda: cluster.tainted("n1", "gpu-0"))
    world.deallocate(whole)
    world.wait(lambda: not cluster.tainted("n1", "gpu-0"))
    cluster.remove()
    cluster.shared("n1", 0, 0)
    share = world.allocate("n1", "gpu-1", share=True)
    world.wait(lambda: cluster.tainted("n1", "gpu-1"))
    world.deallocate(share)
    world.wait(lambda: not cluster.tainted("n1", "gpu-1"))


def test_unchanged_sharing_leaves_devices_with_shares_in_use_as_they_are(cluster: Cluster, a100: Machine) -> None:
    world = cluster.world
    world.add_node("n1", a100)
    cluster.apply(any=FOUR)
    cluster.start()
    cluster.shared("n1", 8, 4)
    world.assert_quiet()
    before = world.slice_writes()
    world.allocate("n1", "gpu-0", share=True)
    cluster.apply(any=f"{FOUR}\n# a remark", more="version: v1", default=FOUR)
    world.wait(lambda: "key default" in cluster.in_force("n1")["source"])
    world.assert_quiet()
    assert world.slice_writes() == before


# -- rules of our own -------------------------------------------------------------------------------------------------


def test_rules_of_driver_configuration_come_before_the_config_map(cluster: Cluster, a100: Machine) -> None:
    rule = SharingRule(Replicas(TIME_SLICING, 8), GpuSelector(minors=(0,)))
    cluster.world.add_node("n1", a100)
    cluster.apply(any=FOUR)
    cluster.start(policy=DevicePolicy(sharing=SharingPolicy((rule,))))
    cluster.world.wait(lambda: cluster.shares("n1") == {"gpu-0": "8"} | {f"gpu-{n}": "4" for n in range(1, 8)})
    message = cluster.told("n1", "SharingInForce")
    assert (
        "nvidia.com/gpu: 8 shares of each of gpu-0 (TimeSlicing); nvidia.com/gpu: 4 shares of each of gpu-1" in message
    )


def test_rules_alone_need_no_config_map(world: World, a100: Machine) -> None:
    world.add_node("n1", a100)
    policy = DevicePolicy(sharing=SharingPolicy((SharingRule(Replicas(TIME_SLICING, 2, renamed=True)),)))
    world.start_controller(policy=policy)
    cluster = Cluster(world)
    cluster.shared("n1", 8, 2)
    assert world.device("n1", "gpu-0")["attributes"]["type"] == {"string": "gpu.shared"}
    assert "nvidia.com/gpu.shared: 2 shares" in cluster.told("n1", "SharingInForce")
    assert cluster.in_force("n1") is None


def test_what_is_refused_dropped_or_absent_is_told(cluster: Cluster, a100: Machine) -> None:
    cluster.world.add_node("n1", a100)
    text = """
sharing:
  mps:
    resources:
    - {name: nvidia.com/gpu, replicas: 49, devices: [0]}
    - {name: nvidia.com/mig-1g.5gb, replicas: 2}
"""
    cluster.apply(any=text)
    cluster.start()
    message = cluster.told("n1", "SharingConfigurationRefused")
    assert message == (
        "gpu-operator/time-slicing-config, key any: gpu-0, gpu-1, gpu-2, gpu-3, gpu-4, gpu-5, gpu-6, gpu-7 are not "
        "shared: an MPS server on Ampere takes 48 clients, not 49: set replicas to 48 at most, or share by "
        "time-slicing; nothing is shared by it"
    )
    assert cluster.condition("n1")["status"] == "False"
    assert cluster.shares("n1") == {}
    cluster.apply(any=text.replace("49", "48"))
    message = cluster.told("n1", "SharingInForce")
    assert "nvidia.com/gpu: 48 shares" in message
    assert "(MPS, one to a request)" in message
    assert "this node offers no nvidia.com/mig-1g.5gb" in message
    assert "sharing.mps.resources[0].devices is ignored, as by the device plugin: every device is shared" in message


def test_mig_devices_that_claims_create_are_not_shared_and_that_is_told(cluster: Cluster, h100: Machine) -> None:
    world = cluster.world
    world.add_node("n1", h100)
    text = FOUR + "    - {name: nvidia.com/mig-1g.10gb, replicas: 2}\n"
    cluster.apply(any=text)
    cluster.start()
    cluster.shared("n1", 8, 4)
    message = cluster.told("n1", "SharingPartlyInForce")
    assert (
        "MIG devices of 1g.10gb on gpu-0, gpu-1, gpu-2, gpu-3, gpu-4, gpu-5, gpu-6, gpu-7 are not shared: claims"
        in message
    )
    assert world.device("n1", "gpu-0")["consumesCounters"]


def test_why_a_gpu_is_not_offered_in_fractions_yet(world: World, h100: Machine) -> None:
    first, *others = h100.gpus
    assert first.mig is not None
    in_mig_mode = replace(first, mig=replace(first.mig, enabled=True))
    world.add_node("n1", replace(h100, gpus=(in_mig_mode, *others)))
    policy = DevicePolicy(sharing=SharingPolicy((SharingRule(Fractions(256 << 20, 1), GpuSelector(minors=(0, 1))),)))
    world.start_controller(policy=policy)
    message = Cluster(world).told("n1", "SharingNotInForce")
    assert message.startswith("gpu-0 is not shared: in MIG mode nobody can measure")
    assert "gpu-1 is not shared: what driver and MPS server need of the memory is measured in a moment" in message


# -- a server without consumable capacity -----------------------------------------------------------------------------

OLD = frozenset({"DRAConsumableCapacity"})
OLDER = OLD | {"DRAPartitionableDevices"}


@pytest.mark.parametrize(
    ("off", "form"),
    [(OLD, "4 replica devices, which draw from one counter set, of each of gpu-0"), (OLDER, "4 plain replica devices")],
)
def test_without_consumable_capacity_there_are_replica_devices(off: frozenset[str], form: str, h100: Machine) -> None:
    world = World(features_off=off)
    try:
        cluster = Cluster(world)
        world.add_node("n1", h100)
        cluster.apply(any=FOUR)
        sent: list[str] = []
        meddling = Meddled(
            world.api, before_slice=lambda each: sent.extend(found["name"] for found in each["spec"].get("devices", []))
        )
        world.start_controller(meddling.api, plugin_config=NAME)
        world.wait(lambda: "gpu-7-replica-3" in world.devices("n1"))
        names = world.devices("n1")
        whole = [name for name in names if "-mig-" not in name]
        assert whole == [f"gpu-{minor}-replica-{index}" for minor in range(8) for index in range(4)]
        assert (names != whole) == (off == OLD)  # placements are safe only beside replicas that draw counters, too
        replica = world.device("n1", "gpu-0-replica-0")
        assert replica["attributes"]["replicas"] == {"int": 4}
        assert ("consumesCounters" in replica) == (off == OLD)
        assert form in cluster.told("n1", "SharingInForce")
        world.assert_quiet()
        assert "gpu-0-replica-0" in sent
        assert "gpu-0" not in sent  # not even for a moment
    finally:
        world.close()


def test_replicas_in_use_drain_before_another_number_is_offered(a100: Machine) -> None:
    world = World(features_off=OLDER)
    try:
        cluster = Cluster(world)
        world.add_node("n1", a100)
        cluster.apply(any=FOUR)
        cluster.start()
        world.published("n1", 32)
        claim = world.allocate("n1", "gpu-0-replica-0")
        cluster.apply(any=TWO)
        world.published("n1", 7 * 2 + 1)
        assert cluster.tainted("n1", "gpu-0-replica-0")
        world.wait(lambda: world.events("AllocatedDeviceUnavailable"))
        world.deallocate(claim)
        world.published("n1", 16)
        whole = world.allocate("n1", "gpu-1-replica-1")
        cluster.remove()
        world.published("n1", 8)
        assert "gpu-1" not in world.devices("n1")
        assert cluster.tainted("n1", "gpu-1-replica-1")
        world.deallocate(whole)
        world.wait(lambda: world.devices("n1") == [f"gpu-{minor}" for minor in range(8)])
        exclusive = world.allocate("n1", "gpu-2")
        cluster.apply(any=TWO)
        world.published("n1", 15)
        assert cluster.tainted("n1", "gpu-2")
        world.deallocate(exclusive)
        world.published("n1", 16)
    finally:
        world.close()


def test_dry_run_knows_sharing_and_writes_nothing(cluster: Cluster, a100: Machine) -> None:
    cluster.world.add_node("n1", a100)
    cluster.apply(any=FOUR)
    before = cluster.world.api.writes()
    out = io.StringIO()
    assert dry_run(cluster.world.api, DRIVER, DevicePolicy(), out, plugin_config=NAME) == 0
    assert "#   SharingInForce: nvidia.com/gpu: 4 shares of each of gpu-0" in out.getvalue()
    assert "allowMultipleAllocations: true" in out.getvalue()
    assert cluster.world.api.writes() == before
