"""A device that an allocated claim holds is never taken out of the pool, nor offered at another cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.pool import is_degraded
from controller.retention import retain, retention_problem
from dra_driver.devices.model import (
    AllocatableDevice,
    Capacity,
    CounterConsumption,
    CounterSet,
    DeviceKind,
    DeviceSet,
    Taint,
)
from dra_driver.hardware.model import Machine
from dra_driver.quantity import Quantity
from dra_driver.slices.features import ApiFeatures
from tests.controller.world import DRIVER, World

TAINT = Taint("gpu.nvidia.com/unavailable", "", "NoSchedule")
ALL = ApiFeatures()


def without(machine: Machine, minor: int) -> Machine:
    return replace(machine, gpus=tuple(gpu for gpu in machine.gpus if gpu.minor != minor))


def test_vanished_device_stays_tainted_until_its_claim_is_deallocated(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 8)
    claim = world.allocate("n1", "gpu-3")
    plugin.report(without(a100, 3))
    world.wait(lambda: world.device("n1", "gpu-3").get("taints"))
    [taint] = world.device("n1", "gpu-3")["taints"]
    assert (taint["key"], taint["effect"]) == ("gpu.nvidia.com/unavailable", "NoSchedule")
    assert world.devices("n1") == [f"gpu-{minor}" for minor in range(8)]
    assert world.device("n1", "gpu-3")["attributes"]["productName"] == {"string": "NVIDIA A100-SXM4-40GB"}
    world.wait(lambda: len(world.events("AllocatedDeviceUnavailable")) == 2)
    world.assert_quiet()
    world.deallocate(claim)
    world.published("n1", 7)
    assert "gpu-3" not in world.devices("n1")


def test_device_that_returns_loses_its_taint(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 8)
    world.allocate("n1", "gpu-3")
    plugin.report(without(a100, 3))
    world.wait(lambda: world.device("n1", "gpu-3").get("taints"))
    plugin.report(a100)
    world.wait(lambda: not world.device("n1", "gpu-3").get("taints"))


def test_vanished_device_that_nobody_holds_goes(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 8)
    world.allocate("n1", "gpu-1")
    world.allocate("n1", "gpu-3", namespace="admin")
    world.allocate("n2", "gpu-3")
    plugin.report(without(a100, 3))
    world.published("n1", 7)


def test_claim_that_was_allocated_while_the_device_went_brings_it_back(world: World, a100: Machine) -> None:
    """The scheduler may still have seen the old slice."""
    plugin = world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 8)
    plugin.report(without(a100, 3))
    world.published("n1", 7)
    world.allocate("n1", "gpu-3")
    world.published("n1", 8)
    assert world.device("n1", "gpu-3")["taints"]


def test_vanished_device_in_use_survives_a_wipe(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 8)
    world.allocate("n1", "gpu-3")
    plugin.report(without(a100, 3))
    world.wait(lambda: world.device("n1", "gpu-3").get("taints"))
    world.wipe("n1")
    world.published("n1", 8)
    assert world.device("n1", "gpu-3")["taints"]


def test_restart_with_a_retained_device_writes_nothing(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", a100)
    controller = world.start_controller()
    world.published("n1", 8)
    world.allocate("n1", "gpu-3")
    plugin.report(without(a100, 3))
    world.wait(lambda: world.device("n1", "gpu-3").get("taints"))
    world.stop_controller(controller)
    before = world.slice_writes()
    again = world.start_controller()
    world.wait(lambda: again.metrics.registry.get_sample_value("gpu_dra_controller_pools") == 1)
    world.assert_quiet()
    assert world.slice_writes() == before


def test_allocated_device_of_which_nothing_is_known_is_reported(world: World, a100: Machine) -> None:
    world.add_node("n1", a100)
    world.allocate("n1", "gpu-99")
    world.start_controller()
    world.published("n1", 8)
    world.wait(lambda: world.events("AllocatedDeviceLost"))
    assert "gpu-99" in world.events("AllocatedDeviceLost")[0]["message"]


# -- the pure function ------------------------------------------------------------------------------------------------


def partition(name: str, slices: int, counter_set: str = "gpu-0") -> AllocatableDevice:
    return AllocatableDevice(
        name=name,
        kind=DeviceKind.MIG,
        gpu_uuid="GPU-0",
        attributes={},
        capacity={},
        consumes=(CounterConsumption(counter_set, {"slices": Quantity.of(slices)}),),
    )


COUNTERS = CounterSet("gpu-0", {"slices": Quantity.of(7)})


def test_device_in_use_keeps_the_cost_it_was_allocated_at() -> None:
    published = DeviceSet((partition("a", 1), partition("b", 2)), (COUNTERS,))
    offered = DeviceSet((partition("a", 3), partition("b", 2)), (COUNTERS,))
    kept = retain(offered, published, {"a", "b"}, DRIVER, ALL)
    assert kept.device_set.devices == (replace(partition("a", 1), taints=(TAINT,)), partition("b", 2))
    assert kept.retained == ("a",)
    problem = retention_problem(kept)
    assert problem is not None
    assert "a; they stay" in problem.message


def test_counter_set_of_a_retained_device_is_retained() -> None:
    published = DeviceSet((partition("a", 1), partition("b", 1)), (COUNTERS,))
    kept = retain(DeviceSet(), published, {"b"}, DRIVER, ALL)
    assert [device.name for device in kept.device_set.devices] == ["b"]
    assert kept.device_set.counter_sets == (COUNTERS,)


def test_shareable_capacity_in_use_is_not_resized() -> None:
    def shared(size: int) -> AllocatableDevice:
        return AllocatableDevice(
            name="a",
            kind=DeviceKind.GPU,
            gpu_uuid="GPU-0",
            attributes={},
            capacity={"memory": Capacity(Quantity.binary(size))},
            allow_multiple_allocations=True,
        )

    kept = retain(DeviceSet((shared(10),)), DeviceSet((shared(20),)), {"a"}, DRIVER, ALL)
    assert kept.device_set.devices == (replace(shared(20), taints=(TAINT,)),)
    assert retain(DeviceSet((shared(10),)), DeviceSet((shared(20),)), (), DRIVER, ALL).device_set.devices == (
        shared(10),
    )


def test_fractions_in_use_run_out_before_the_device_is_offered_with_another_fence() -> None:
    """Who comes with the new fence would be refused on this very device, where others would have room for it."""

    def fenced(backend: str) -> AllocatableDevice:
        return AllocatableDevice(
            name="a",
            kind=DeviceKind.GPU,
            gpu_uuid="GPU-0",
            attributes={"sharingBackend": backend},
            capacity={"memory": Capacity(Quantity.binary(20))},
            allow_multiple_allocations=True,
        )

    now, before = DeviceSet((fenced("Mps"),)), DeviceSet((fenced("None"),))
    in_use = retain(now, before, {"a"}, DRIVER, ALL, {"a"})
    assert in_use.device_set.devices == (replace(fenced("None"), taints=(TAINT,)),)
    assert retain(now, before, (), DRIVER, ALL).device_set.devices == (fenced("Mps"),)


@pytest.mark.parametrize(
    ("offered", "published", "in_use", "result"),
    [
        ("ace", "abcde", "bd", "abcde"),
        ("e", "abcde", "ab", "abe"),
        ("ae", "abcde", "d", "ade"),
        ("xae", "abe", "b", "xabe"),
        ("", "abc", "b", "b"),
    ],
)
def test_retained_devices_keep_their_place(offered: str, published: str, in_use: str, result: str) -> None:
    def gpus(names: str) -> DeviceSet:
        return DeviceSet(
            tuple(AllocatableDevice(name, DeviceKind.GPU, name, attributes={}, capacity={}) for name in names)
        )

    kept = retain(gpus(offered), gpus(published), set(in_use), DRIVER, ALL)
    assert "".join(device.name for device in kept.device_set.devices) == result


def test_without_taints_a_retained_device_stays_unguarded_rather_than_going() -> None:
    published = DeviceSet((replace(partition("a", 1), consumes=(), kind=DeviceKind.GPU, taints=(TAINT,)),))
    kept = retain(DeviceSet(), published, {"a"}, DRIVER, ApiFeatures(taints=False))
    [device] = kept.device_set.devices
    assert (device.name, device.taints) == ("a", ())


def test_degraded_says_what_is_withheld() -> None:
    offered = DeviceSet((partition("a", 4), partition("b", 4), partition("c", 5)), (COUNTERS,))
    assert is_degraded(offered, ALL) is None
    problem = is_degraded(offered, ApiFeatures(partitionable=False))
    assert problem is not None
    assert "b, c" in problem.message
