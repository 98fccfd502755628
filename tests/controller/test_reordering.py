"""Reordering by use through the whole controller: what it writes, how often, and what it leaves alone."""

from __future__ import annotations

import pytest

from api.mig_policy import MigPacking
from controller import reorder_pace
from controller.app import Controller
from controller.reorder_pace import POOLS_A_SECOND, REORDER_SECONDS, SETTLE_SECONDS, Reorder, ReorderPace
from dra_driver.devices.policy import DevicePolicy, MigPolicy
from dra_driver.hardware.model import Machine
from dra_driver.kube.backoff import TokenBucket
from tests.controller.world import World

ACROSS = DevicePolicy(mig=MigPolicy(packing=MigPacking.ACROSS_GPUS))
ONE = "mig-1g10gb-19-"


def first(world: World, profile: str) -> str:
    return next(name for name in world.devices("n1") if f"mig-{profile}" in name)


def generations(world: World) -> set[int]:
    return {each["spec"]["pool"]["generation"] for each in world.slices("n1")}


def contents(world: World) -> list[list[str]]:
    return [sorted(str(device) for device in each["spec"].get("devices", [])) for each in world.slices("n1")]


def test_a_claim_moves_devices_in_place_and_its_end_moves_them_back(
    world: World, h100: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reorder_pace, "REORDER_SECONDS", 0.0)
    world.add_node("n1", h100)
    world.start_controller(policy=ACROSS)
    world.published("n1", 208)
    assert [len(each["spec"].get("devices", [])) for each in world.slices("n1")] == [0, 64, 56, 56, 32]
    world.assert_quiet()
    before, held = contents(world), world.devices("n1")
    assert first(world, "1g10gb-19") == f"gpu-0-{ONE}6"
    claim = world.allocate("n1", f"gpu-3-{ONE}6")
    world.wait(lambda: first(world, "1g10gb-19") == f"gpu-3-{ONE}5")
    world.wait(lambda: first(world, "3g40gb") == "gpu-3-mig-3g40gb-9-0")
    world.assert_quiet()
    assert contents(world) == before
    assert generations(world) == {1}
    world.deallocate(claim)
    world.wait(lambda: world.devices("n1") == held)
    world.assert_quiet()
    assert generations(world) == {1}
    assert set(world.slice_writes()) == {"create", "update"}


def reordered(world: World, machine: Machine) -> tuple[Controller, str]:
    """A node whose devices a claim has moved; the controller and the claim."""
    world.add_node("n1", machine)
    controller = world.start_controller(policy=ACROSS)
    world.published("n1", 208)
    claim = world.allocate("n1", f"gpu-3-{ONE}6")
    world.wait(lambda: first(world, "1g10gb-19") == f"gpu-3-{ONE}5")
    return controller, claim


def test_a_second_change_waits_for_its_turn(world: World, h100: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reorder_pace, "REORDER_SECONDS", 3600.0)
    monkeypatch.setattr(reorder_pace, "SETTLE_SECONDS", 0.0)
    _controller, claim = reordered(world, h100)
    world.assert_quiet()
    before = world.slice_writes()
    world.deallocate(claim)
    world.allocate("n1", f"gpu-5-{ONE}6")
    world.assert_quiet(0.3)
    assert world.slice_writes() == before


def test_a_second_change_comes_by_itself(world: World, h100: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reorder_pace, "REORDER_SECONDS", 1.0)
    _controller, claim = reordered(world, h100)
    world.deallocate(claim)
    world.allocate("n1", f"gpu-5-{ONE}6")
    world.wait(lambda: first(world, "1g10gb-19") == f"gpu-5-{ONE}5")


def test_whole_gpus_and_nodes_that_go_gpu_by_gpu_write_nothing(world: World, h100: Machine) -> None:
    world.add_node("n1", h100)
    controller = world.start_controller(policy=ACROSS)
    world.published("n1", 208)
    before = world.slice_writes()
    world.deallocate(world.allocate("n1", "gpu-0"))
    world.allocate("n1", "gpu-7")
    world.assert_quiet()
    assert world.slice_writes() == before
    world.stop_controller(controller)
    world.start_controller()
    world.wait(lambda: len(world.slices("n1")) == 9, "the cut by GPU")
    world.assert_quiet()
    before = world.slice_writes()
    world.allocate("n1", f"gpu-3-{ONE}6")
    world.assert_quiet()
    assert world.slice_writes() == before


def test_a_restart_finds_the_order_as_it_left_it(world: World, h100: Machine) -> None:
    controller, _claim = reordered(world, h100)
    world.settled(controller)
    before = world.slice_writes()
    world.stop_controller(controller)
    world.settled(world.start_controller(policy=ACROSS))
    assert world.slice_writes() == before


def test_the_pace_of_one_pool() -> None:
    pace, turns = ReorderPace(), TokenBucket(1.0, 1, clock=lambda: 100.0)
    assert pace.at(100.0, MigPacking.PER_GPU) is Reorder.NEVER
    assert pace.at(100.0, MigPacking.ACROSS_GPUS) is Reorder.LATER
    assert pace.wish(100.0, turns) == SETTLE_SECONDS
    assert pace.at(100.0 + SETTLE_SECONDS / 2, MigPacking.ACROSS_GPUS) is Reorder.LATER
    then = 100.0 + SETTLE_SECONDS
    assert pace.at(then, MigPacking.ACROSS_GPUS) is Reorder.NOW
    pace.had_turn(then, reordered=True)
    assert pace.at(then, MigPacking.ACROSS_GPUS) is Reorder.LATER
    assert pace.wish(then + 10, turns) == REORDER_SECONDS - SETTLE_SECONDS - 10
    assert pace.turn is None


def test_pools_take_turns() -> None:
    turns = TokenBucket(POOLS_A_SECOND, 1, clock=lambda: 100.0)
    paces = [ReorderPace() for _ in range(4)]
    waits = [pace.wish(100.0, turns) for pace in paces]
    assert waits == [SETTLE_SECONDS, 1 / POOLS_A_SECOND, 2 / POOLS_A_SECOND, 3 / POOLS_A_SECOND]
    assert [pace.wish(100.0, turns) for pace in paces] == waits, "one turn each, however often it is looked at"


def test_a_turn_that_came_to_nothing_does_not_make_the_next_one_wait() -> None:
    pace, turns = ReorderPace(), TokenBucket(1.0, 5, clock=lambda: 100.0)
    pace.wish(100.0, turns)
    pace.had_turn(102.0, reordered=False)
    assert pace.at(102.0, MigPacking.ACROSS_GPUS) is Reorder.LATER
    assert pace.wish(102.0, turns) == SETTLE_SECONDS
