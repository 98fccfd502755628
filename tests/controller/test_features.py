"""API servers whose feature gates are off: what is published then, and how people learn of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

import controller.pool
from controller.features import ServerFeatures
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.model import (
    AllocatableDevice,
    CounterConsumption,
    CounterSet,
    DeviceKind,
    DeviceSet,
    Taint,
)
from dra_driver.devices.policy import DevicePolicy
from dra_driver.hardware.model import Machine
from dra_driver.kube.interface import NODE_INVENTORIES, Obj
from dra_driver.quantity import Quantity
from dra_driver.simulation.store import OFF_BY_DEFAULT, EmbeddedApi
from dra_driver.slices.cutting import PoolOwner
from tests.controller.world import World

OWNER = PoolOwner("gpu.nvidia.com", "n1", "uid")
COUNTERS = {"slices": Quantity.of(7)}


def partitioned(machine: Machine, _policy: DevicePolicy, _node: str = "") -> DeviceSet:
    """The machine's GPUs drawing on counters, and one half of GPU 0, as a later policy would offer them."""
    gpus = allocatable_devices(machine, DevicePolicy()).devices[:2]
    whole = tuple(replace(gpu, consumes=(CounterConsumption(gpu.name, COUNTERS),)) for gpu in gpus)
    half = AllocatableDevice(
        name="gpu-0-mig-3g20gb-9-0",
        kind=DeviceKind.MIG,
        gpu_uuid=gpus[0].gpu_uuid,
        attributes={"type": "mig"},
        capacity={},
        consumes=(CounterConsumption("gpu-0", {"slices": Quantity.of(3)}),),
    )
    return DeviceSet((half, *whole), tuple(CounterSet(gpu.name, COUNTERS) for gpu in gpus))


def tainted(machine: Machine, _policy: DevicePolicy, _node: str = "") -> DeviceSet:
    first, *rest = allocatable_devices(machine, DevicePolicy()).devices
    return DeviceSet((replace(first, taints=(Taint("example.com/sick", "", "NoSchedule"),)), *rest))


def condition_of(world: World) -> Obj | None:
    conditions = world.api.get(NODE_INVENTORIES, "n1").get("status", {}).get("conditions", [])
    found: list[Obj] = [condition for condition in conditions if condition["type"] == "FullyPublished"]
    return found[0] if found else None


@pytest.fixture
def no_counters() -> Iterator[World]:
    world = World(features_off=frozenset({"DRAPartitionableDevices"}))
    yield world
    world.close()


@pytest.fixture
def no_taints() -> Iterator[World]:
    world = World(features_off=frozenset({"DRADeviceTaints"}))
    yield world
    world.close()


def test_counters_get_slices_of_their_own_on_this_server(
    world: World, a100: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller.pool, "allocatable_devices", partitioned)
    world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 3)
    assert "sharedCounters" in world.slices("n1")[0]["spec"]
    assert not world.slices("n1")[0]["spec"].get("devices")
    world.assert_quiet()
    assert condition_of(world) is None


def test_without_counters_only_devices_that_do_not_overlap_are_ever_written(
    no_counters: World, a100: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller.pool, "allocatable_devices", partitioned)
    world = no_counters
    plugin = world.add_node("n1", a100)
    plugin.write_status({"conditions": [{"type": "HardwareReady", "status": "True", "reason": "Read"}]})
    world.start_controller()
    world.published("n1", 2)
    assert world.devices("n1") == ["gpu-0", "gpu-1"]
    assert world.slice_writes() == {"create": 1}  # the dry run told, so nothing unsafe was written before
    world.wait(lambda: world.events("ApiServerDropsFields"))
    assert "gpu-0-mig-3g20gb-9-0" in world.events("ApiServerDropsFields")[0]["message"]
    condition = condition_of(world)
    assert condition is not None
    assert (condition["status"], condition["reason"]) == ("False", "ApiServerDropsFields")
    others = world.api.get(NODE_INVENTORIES, "n1")["status"]["conditions"]
    assert [found["type"] for found in others] == ["HardwareReady", "FullyPublished"]
    world.assert_quiet()


def test_condition_clears_when_the_server_holds_everything_again(
    world: World, a100: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller.pool, "allocatable_devices", partitioned)
    plugin = world.add_node("n1", a100)
    plugin.write_status({"conditions": [{"type": "FullyPublished", "status": "False", "reason": "Earlier"}]})
    world.start_controller()
    world.published("n1", 3)
    world.wait(lambda: (condition_of(world) or {}).get("status") == "True")
    world.assert_quiet()


def test_plugin_that_overwrites_the_condition_starts_no_war(
    no_counters: World, a100: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller.pool, "allocatable_devices", partitioned)
    plugin = no_counters.add_node("n1", a100)
    no_counters.start_controller()
    no_counters.wait(lambda: condition_of(no_counters))
    plugin.write_status({"conditions": []})
    no_counters.assert_quiet()
    assert condition_of(no_counters) is None


def test_dropped_taint_withdraws_the_device_it_was_to_guard(
    no_taints: World, a100: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No dry run asks for taints beforehand: the echo of the write tells."""
    monkeypatch.setattr(controller.pool, "allocatable_devices", tainted)
    world = no_taints
    world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 7)
    assert "gpu-0" not in world.devices("n1")
    assert world.slice_writes() == {"create": 1, "update": 1}
    world.wait(lambda: world.events("ApiServerDropsFields"))
    world.assert_quiet()


def test_dropped_taint_of_a_device_in_use_leaves_it_published(no_taints: World, a100: Machine) -> None:
    world = no_taints
    plugin = world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 8)
    claim = world.allocate("n1", "gpu-3")
    plugin.report(replace(a100, gpus=tuple(gpu for gpu in a100.gpus if gpu.minor != 3)))
    world.wait(lambda: world.events("AllocatedDeviceUnavailable"))
    world.assert_quiet()
    assert len(world.devices("n1")) == 8
    world.deallocate(claim)
    world.published("n1", 7)


def test_probe_is_one_dry_run_and_only_for_counters(a100: Machine) -> None:
    requests: list[tuple[str, str, bool]] = []
    api = EmbeddedApi(audit=lambda entry: requests.append((entry.verb, entry.resource, entry.dry_run)))
    features = ServerFeatures(api)
    requests.clear()
    features.for_devices(allocatable_devices(a100, DevicePolicy()), OWNER)
    assert requests == []
    for _ in range(2):
        found = features.for_devices(partitioned(a100, DevicePolicy()), OWNER)
    assert requests == [("create", "resourceslices", True)]
    assert (found.partitionable, found.combined_counters) == (True, False)


def test_probe_on_a_server_that_drops_counters(a100: Machine) -> None:
    api = EmbeddedApi(disabled_features=OFF_BY_DEFAULT | {"DRAPartitionableDevices"})
    found = ServerFeatures(api).for_devices(partitioned(a100, DevicePolicy()), OWNER)
    assert not found.partitionable
