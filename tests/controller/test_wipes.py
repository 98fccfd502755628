"""The kubelet deletes a node's slices at its start and after it lost the plugin; the controller brings them back only on
proof, quickly, and as often as it takes."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from controller import challenge
from controller.challenge import ChallengeTimings
from dra_driver.devices.naming import gpu_name
from dra_driver.hardware.model import Machine
from dra_driver.kube.interface import NODE_INVENTORIES, RESOURCE_SLICES, KubeApi, Obj, Unavailable
from tests.controller.world import Meddling, World, big_machine


@pytest.fixture
def published(world: World, a100: Machine) -> World:
    """One node, ``n1``, whose eight GPUs are published; one controller; the plugin answers."""
    world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 8)
    return world


def plugin_of(world: World) -> Any:
    return world._plugins[0]


def test_wiped_slices_come_back_within_two_seconds_once_the_plugin_answers(published: World) -> None:
    began = time.monotonic()
    published.wipe("n1")
    published.published("n1", 8)
    assert time.monotonic() - began < 2.0
    assert len(plugin_of(published).challenges) == 2
    assert published.slices("n1")[0]["spec"]["pool"]["generation"] == 2
    published.assert_quiet()


def test_default_timings_stay_below_two_seconds() -> None:
    timings = ChallengeTimings()
    assert timings.settle + timings.jitter < 1.0


def test_without_a_live_plugin_they_do_not_come_back(published: World) -> None:
    plugin = plugin_of(published)
    plugin.disconnect()
    published.wipe("n1")
    published.wait(lambda: len(plugin.challenges) == 2)
    published.assert_quiet(0.3)
    assert published.slices("n1") == []
    plugin.connect()
    published.published("n1", 8)
    assert len(plugin.challenges) == 2


def test_answer_from_before_the_wipe_proves_nothing(published: World) -> None:
    plugin = plugin_of(published)
    plugin.disconnect()
    inventory = published.api.get(NODE_INVENTORIES, "n1")
    assert inventory["spec"]["challenge"] == inventory["status"]["answer"]
    published.wipe("n1")
    published.wait(lambda: len(plugin.challenges) == 2)
    published.assert_quiet()
    assert published.slices("n1") == []


def test_late_second_wipe_is_survived(published: World) -> None:
    """The kubelet's cleanup may come after the registration, when the slices are already back."""
    for wipes in range(1, 4):
        published.wipe("n1")
        published.published("n1", 8)
        assert published.slices("n1")[0]["spec"]["pool"]["generation"] == 1 + wipes
    published.assert_quiet()


def test_wipe_between_challenge_and_creation_needs_a_new_answer(world: World, a100: Machine) -> None:
    """A deletion that is seen after the challenge was issued is not covered by its answer."""
    plugin = world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 8)
    plugin.disconnect()
    world.wipe("n1")
    world.wait(lambda: len(plugin.challenges) == 2)
    other = {
        "metadata": {"name": "00009-late"},
        "spec": {
            "driver": "gpu.nvidia.com",
            "nodeName": "n1",
            "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1},
            "devices": [],
        },
    }
    world.api.create(RESOURCE_SLICES, other)
    world.wipe("n1")
    world.wait(lambda: len(plugin.challenges) == 3, "a new challenge")
    world.assert_quiet()
    plugin.connect()
    world.published("n1", 8)


def test_answer_is_asked_for_again_when_the_creation_came_too_late(
    world: World, a100: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the API server was away the plugin may have gone, and a wipe that finds no slices is not seen."""
    # Good for the look that first shows the answer, and for no later one, however soon the queue tries again.
    monkeypatch.setattr(challenge, "PROOF_SECONDS", 0.0)
    plugin = world.add_node("n1", a100)

    def fail() -> None:
        plugin.disconnect()
        raise Unavailable("away")

    world.start_meddled(create=[fail])
    world.wait(lambda: len(plugin.challenges) == 2, "a new challenge")
    world.assert_quiet()
    assert world.slices("n1") == []
    plugin.connect()
    world.published("n1", 8)


def test_partial_wipe_is_completed(world: World) -> None:
    """DeleteCollection is not atomic, and an admin may delete one slice of several."""
    plugin = world.add_node("n1", big_machine(150))
    world.start_controller()
    world.published("n1", 150)
    names = [obj["metadata"]["name"] for obj in world.slices("n1")]
    assert len(names) == 3
    world.api.delete(RESOURCE_SLICES, names[1])
    world.published("n1", 150)
    pools = [obj["spec"]["pool"] for obj in world.slices("n1")]
    assert pools == [{"name": "n1", "generation": 2, "resourceSliceCount": 3}] * 3
    assert world.devices("n1") == [gpu_name(minor) for minor in range(150)]
    assert len(plugin.challenges) == 2
    world.assert_quiet()


def test_wipe_while_no_controller_runs_is_put_right_on_proof(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", a100)
    controller = world.start_controller()
    world.published("n1", 8)
    world.stop_controller(controller)
    world.wipe("n1")
    plugin.disconnect()
    world.start_controller()
    world.wait(lambda: len(plugin.challenges) == 2)
    world.assert_quiet()
    assert world.slices("n1") == []
    plugin.connect()
    world.published("n1", 8)


def changed(machine: Machine) -> Machine:
    return replace(machine, driver_version="580.200.01")


def test_404_on_update_is_a_wipe(world: World, a100: Machine) -> None:
    """Measured on a real kubelet: the wipe falls between looking and writing in 3 of 11 restarts."""
    plugin = world.add_node("n1", a100)
    meddling = world.start_meddled()
    world.published("n1", 8)
    meddling.before["update"] = [lambda: world.wipe("n1")]
    plugin.report(changed(a100))
    world.wait(lambda: len(plugin.challenges) == 2)
    world.published("n1", 8)
    assert world.device("n1", "gpu-0")["attributes"]["driverVersion"] == {"version": "580.200.1"}
    assert meddling.calls.count("create") == 2
    world.assert_quiet()


def test_conflict_on_update_is_tried_again_with_the_newer_slice(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", a100)
    meddling = world.start_meddled()
    world.published("n1", 8)

    def touch() -> None:
        [found] = world.slices("n1")
        found["metadata"]["labels"] = {"touched": "yes"}
        world.api.update(RESOURCE_SLICES, found)

    meddling.before["update"] = [touch]
    plugin.report(changed(a100))
    version = {"version": "580.200.1"}
    world.wait(lambda: world.device("n1", "gpu-0")["attributes"]["driverVersion"] == version)
    assert world.slices("n1")[0]["metadata"]["labels"] == {"touched": "yes"}
    assert meddling.calls.count("create") == 1
    assert meddling.calls.count("update") >= 2


def test_slice_that_is_wiped_before_its_creation_is_even_answered_comes_back(world: World, a100: Machine) -> None:
    world.add_node("n1", a100)

    class WipedAtOnce(Meddling):
        wiped = False

        def __getattr__(self, name: str) -> Any:
            method = super().__getattr__(name)
            if name != "create":
                return method

            def create(resource: Any, obj: Obj, **options: Any) -> Obj:
                answer: Obj = method(resource, obj, **options)
                if resource == RESOURCE_SLICES and not self.wiped:
                    self.wiped = True
                    world.wipe("n1")
                    # The answer comes after the watch has shown both the creation and the deletion.
                    time.sleep(0.1)
                return answer

            return create

    api: KubeApi = WipedAtOnce(world.api)
    world.start_controller(api)
    world.published("n1", 8)
    world.assert_quiet()


def test_404_on_deletion_of_an_obsolete_slice_is_a_wipe(world: World) -> None:
    plugin = world.add_node("n1", big_machine(150))
    meddling = world.start_meddled()
    world.published("n1", 150)
    meddling.before["delete"] = [lambda: world.wipe("n1")]
    plugin.report(big_machine(60))
    world.wait(lambda: len(plugin.challenges) == 2)
    world.published("n1", 60)
    assert len(world.slices("n1")) == 1
    world.assert_quiet()
    world.assert_quiet()


def test_precondition_that_fails_on_deletion_is_looked_at_again(world: World) -> None:
    plugin = world.add_node("n1", big_machine(100))
    meddling = world.start_meddled()
    world.published("n1", 100)

    def touch() -> None:
        found = world.slices("n1")[1]
        found["metadata"]["labels"] = {"touched": "yes"}
        world.api.update(RESOURCE_SLICES, found)

    meddling.before["delete"] = [touch]
    plugin.report(big_machine(60))
    world.wait(lambda: len(world.slices("n1")) == 1)
    world.published("n1", 60)
    assert meddling.calls.count("delete") >= 2
    assert meddling.calls.count("update") == 1
