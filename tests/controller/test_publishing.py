"""The controller on an embedded API: what it publishes, when it writes, and that it writes nothing otherwise."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from dra_driver.hardware.model import Machine
from dra_driver.kube.interface import NODE_INVENTORIES, NODES, RESOURCE_SLICES, Invalid, Obj, Unavailable
from dra_driver.kube.reflector import Reflector
from tests.controller.world import World


def test_publishes_all_nodes_after_their_plugins_answered(world: World, a100: Machine, t4: Machine) -> None:
    first, second = world.add_node("n1", a100), world.add_node("n2", t4)
    world.start_controller()
    world.published("n1", 8)
    world.published("n2", 4)
    assert world.devices("n1") == [f"gpu-{minor}" for minor in range(8)]
    [found] = world.slices("n1")
    assert found["spec"]["pool"] == {"name": "n1", "generation": 1, "resourceSliceCount": 1}
    node = world.api.get(NODES, "n1")["metadata"]
    assert found["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": node["uid"], "controller": True}
    ]
    assert len(first.challenges) == len(second.challenges) == 1
    assert world.slice_writes() == {"create": 2}


def test_creates_nothing_while_the_plugin_is_not_registered(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", a100, connected=False)
    world.start_controller()
    world.wait(lambda: plugin.challenges)
    world.assert_quiet()
    assert world.slices("n1") == []
    plugin.connect()
    world.published("n1", 8)


def test_idle_means_no_writes(world: World, a100: Machine) -> None:
    world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 8)
    world.assert_quiet(0.5)


def test_restart_with_unchanged_hardware_writes_nothing(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", a100)
    controller = world.start_controller()
    world.published("n1", 8)
    world.stop_controller(controller)
    before = world.api.writes()
    again = world.start_controller()
    world.wait(lambda: again.metrics.registry.get_sample_value("gpu_dra_controller_pools") == 1)
    plugin.report(a100)
    world.assert_quiet()
    assert world.api.writes() - before == Counter({("patch", "nodeinventories"): 1})  # the plugin's own


def test_changed_device_updates_its_slice_in_place_without_proof(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 8)
    plugin.disconnect()
    plugin.report(replace(a100, driver_version="580.200.01"))
    version = {"version": "580.200.1"}
    world.wait(lambda: world.device("n1", "gpu-0")["attributes"]["driverVersion"] == version)
    assert world.slice_writes() == {"create": 1, "update": 1}
    assert world.slices("n1")[0]["spec"]["pool"]["generation"] == 1
    assert len(plugin.challenges) == 1


def test_unreadable_hardware_is_an_empty_complete_pool_and_an_event(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1")
    world.start_controller()
    plugin.report_unreadable("libnvidia-ml.so.1 not found below /usr/lib64")
    world.wait(lambda: len(world.slices("n1")) == 1)
    [found] = world.slices("n1")
    assert found["spec"].get("devices", []) == []
    assert found["spec"]["pool"]["resourceSliceCount"] == 1
    world.wait(lambda: len(world.events("HardwareNotReady")) == 2)
    assert {event["involvedObject"]["kind"] for event in world.events("HardwareNotReady")} == {"Node", "NodeInventory"}
    assert "libnvidia-ml.so.1 not found" in world.events("HardwareNotReady")[0]["message"]
    plugin.report(a100)
    world.published("n1", 8)


def test_plugin_that_has_said_nothing_changes_nothing(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", a100)
    controller = world.start_controller()
    world.published("n1", 8)
    plugin.write_status({"machine": None, "registration": {"pluginInstance": "new"}})
    world.assert_quiet()
    assert len(world.devices("n1")) == 8
    world.stop_controller(controller)


def test_inventory_that_cannot_be_read_is_reported_and_leaves_the_pool(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 8)
    plugin.write_status({"machine": {"driverVersion": "1", "cudaDriverVersion": "not a number"}})
    world.wait(lambda: world.events("InvalidInventory"))
    assert "status.machine.cudaDriverVersion" in world.events("InvalidInventory")[0]["message"]
    assert len(world.devices("n1")) == 8


def test_inventory_without_a_node_and_node_without_inventory_publish_nothing(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", a100)
    inventory = world.api.get(NODE_INVENTORIES, "n1")
    world.api.delete(NODES, "n1")
    del inventory["metadata"]["resourceVersion"], inventory["metadata"]["ownerReferences"]
    inventory["metadata"]["name"] = "ghost"
    world.api.create(NODE_INVENTORIES, inventory)
    world.api.create(NODES, {"metadata": {"name": "bare"}})
    world.start_controller()
    world.assert_quiet()
    assert world.api.list(RESOURCE_SLICES).items == []
    assert plugin.challenges == []


def test_deleted_node_takes_its_slices_and_a_new_one_of_the_name_gets_new_ones(world: World, a100: Machine) -> None:
    world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 8)
    old_uid = world.api.get(NODES, "n1")["metadata"]["uid"]
    world.api.delete(NODES, "n1")
    world.wait(lambda: not world.slices("n1"))
    world.assert_quiet()
    world.add_node("n1", a100)
    world.published("n1", 8)
    [found] = world.slices("n1")
    assert found["metadata"]["ownerReferences"][0]["uid"] == world.api.get(NODES, "n1")["metadata"]["uid"] != old_uid


def test_slices_of_an_earlier_node_object_are_replaced_never_adopted(world: World, a100: Machine) -> None:
    """The node was deleted and made again while no controller ran, and the garbage collector has not come yet."""
    world.add_node("n1", a100)
    # The embedded collector goes by UIDs that exist, so the earlier Node is played by another object.
    earlier = world.api.create(NODES, {"metadata": {"name": "earlier"}})["metadata"]["uid"]
    stale = {
        "metadata": {
            "name": "00000-gpu.nvidia.com-n1-stale",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": earlier}],
        },
        "spec": {
            "driver": "gpu.nvidia.com",
            "nodeName": "n1",
            "pool": {"name": "n1", "generation": 7, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0"}],
        },
    }
    world.api.create(RESOURCE_SLICES, stale)
    world.start_controller()
    world.published("n1", 8)
    [found] = world.slices("n1")
    assert found["metadata"]["name"] != "00000-gpu.nvidia.com-n1-stale"
    assert found["spec"]["pool"]["generation"] == 8


def test_hand_edited_slice_is_put_right(world: World, a100: Machine) -> None:
    world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 8)
    [found] = world.slices("n1")
    found["spec"]["devices"] = found["spec"]["devices"][:3]
    world.api.update(RESOURCE_SLICES, found)
    world.published("n1", 8)
    world.assert_quiet()


def test_slices_of_other_drivers_are_left_alone(world: World, a100: Machine) -> None:
    other = {
        "metadata": {"name": "other"},
        "spec": {
            "driver": "other.example.com",
            "nodeName": "n1",
            "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "x"}],
        },
    }
    world.add_node("n1", a100)
    world.api.create(RESOURCE_SLICES, other)
    world.start_controller()
    world.published("n1", 9)
    assert world.api.get(RESOURCE_SLICES, "other")["spec"]["pool"]["generation"] == 1


def test_refused_slice_is_reported_once_and_not_sent_again_and_again(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", a100)

    def refuse() -> None:
        raise Invalid("spec.devices[0].name: Invalid value")

    meddling = world.start_meddled(create=[refuse])
    world.wait(lambda: world.events("SliceRefused"))
    assert "spec.devices[0].name" in world.events("SliceRefused")[0]["message"]
    world.assert_quiet()
    assert meddling.calls == ["create"]
    plugin.write_status({"features": {"fixed": True}})
    world.published("n1", 8)


def test_somebody_who_undoes_every_write_is_not_fought_at_full_speed(world: World, a100: Machine) -> None:
    world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 8)

    def undo(_old: Obj | None, new: Obj | None) -> None:
        if new is not None and len(new["spec"]["devices"]) == 8:
            spec = {**new["spec"], "devices": new["spec"]["devices"][:1]}
            world.api.update(RESOURCE_SLICES, {**new, "spec": spec})

    opponent = Reflector(world.api, RESOURCE_SLICES, undo)
    opponent.start()
    world.wait(lambda: world.slice_writes()["update"] >= 30)
    world.assert_quiet(0.3)
    opponent.stop()
    assert world.slice_writes()["update"] < 50


def test_failing_requests_are_tried_again(world: World, a100: Machine) -> None:
    world.add_node("n1", a100)

    def fail() -> None:
        raise Unavailable("etcd has no leader")

    meddling = world.start_meddled(create=[fail, fail, fail])
    world.published("n1", 8)
    assert meddling.calls == ["create"] * 4


@pytest.mark.parametrize("count", [30])
def test_many_nodes_each_take_one_challenge_and_one_write(world: World, t4: Machine, count: int) -> None:
    plugins = [world.add_node(f"n{number}", t4) for number in range(count)]
    controller = world.start_controller()
    for number in range(count):
        world.published(f"n{number}", 4)
    assert world.slice_writes() == {"create": count}
    assert all(len(plugin.challenges) == 1 for plugin in plugins)
    sample = controller.metrics.registry.get_sample_value
    world.wait(lambda: sample("gpu_dra_controller_pools") == count)
    assert sample("gpu_dra_controller_devices") == 4 * count
    assert sample("gpu_dra_controller_nodes") == count
    assert sample("gpu_dra_controller_slice_writes_total", {"verb": "create"}) == count
    assert sample("gpu_dra_controller_challenges_outstanding") == 0
