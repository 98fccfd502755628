"""MIG through the whole controller: which changes of a node write slices, and what people are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from api.mig_policy import MigMode
from controller.mig_problems import mig_problems
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.hardware.model import GpuInstance, Machine, MigPlacement, MigState, RefusedPlacement
from tests.controller.world import World
from tests.devices.builders import machine
from tests.devices.mig_gpus import A100, AMPERE, instance, mig_gpu, profile

FOREIGN = "gpu.nvidia.com/foreign-mig-instance"


def changed(
    of: Machine,
    minor: int,
    *,
    enabled: bool,
    instances: Sequence[GpuInstance] = (),
    refused: Sequence[RefusedPlacement] = (),
) -> Machine:
    """``of`` with another MIG state on one GPU."""
    return replace(
        of,
        gpus=tuple(
            replace(
                gpu,
                mig=replace(
                    gpu.mig, enabled=enabled, pending=enabled, instances=tuple(instances), refused=tuple(refused)
                ),
            )
            if gpu.minor == minor and gpu.mig
            else gpu
            for gpu in of.gpus
        ),
    )


def policy(mode: MigMode | None, *, adopt: bool = False) -> DevicePolicy:
    return DevicePolicy(mig=MigPolicy((MigRule(mode=mode, adopt_foreign=adopt),)))


def taints(world: World, device: str) -> list[str]:
    return [taint["key"] for taint in world.device("n1", device).get("taints", [])]


def test_a_node_of_divisible_gpus_has_a_slice_for_each_and_one_of_counters(world: World, h100: Machine) -> None:
    world.add_node("n1", h100)
    world.start_controller()
    world.published("n1", 8 * 26)
    counters, *devices = world.slices("n1")
    assert [each["name"] for each in counters["spec"]["sharedCounters"]] == [
        f"gpu-{minor}-counter-set" for minor in range(8)
    ]
    assert [len(each["spec"]["devices"]) for each in devices] == [26] * 8
    assert all(each["spec"]["devices"][0]["name"] == f"gpu-{minor}" for minor, each in enumerate(devices))
    assert world.slice_writes() == {"create": 9}
    world.assert_quiet()


def test_mig_mode_and_the_instances_of_claims_write_nothing(world: World, h100: Machine) -> None:
    plugin = world.add_node("n1", h100)
    world.start_controller()
    world.published("n1", 208)
    world.allocate("n1", "gpu-2-mig-3g40gb-9-4")
    before = world.slice_writes()
    for enabled, found in (
        (True, ()),
        (True, (instance("3g.40gb", 4),)),
        (True, (instance("1g.10gb", 0), instance("3g.40gb", 4))),
        (True, ()),
        (False, ()),
    ):
        plugin.report(changed(h100, 2, enabled=enabled, instances=found))
        world.assert_quiet()
    assert world.slice_writes() == before
    assert world.events("ForeignMigInstance") == []


def test_a_foreign_instance_is_one_update_one_pair_of_events_and_gone_when_it_goes(world: World, h100: Machine) -> None:
    plugin = world.add_node("n1", h100)
    world.start_controller()
    world.published("n1", 208)
    before = world.slice_writes()
    foreign = changed(h100, 2, enabled=True, instances=(instance("1g.20gb", 6, foreign=True),))
    plugin.report(foreign)
    world.wait(lambda: taints(world, "gpu-2"))
    world.assert_quiet()
    assert world.slice_writes() - before == {"update": 1}
    assert taints(world, "gpu-2-mig-1g10gb-19-6") == [FOREIGN]
    assert taints(world, "gpu-2-mig-1g10gb-19-5") == []
    world.wait(lambda: len(world.events("ForeignMigInstance")) == 2)
    kinds = {event["involvedObject"]["kind"] for event in world.events("ForeignMigInstance")}
    assert kinds == {"Node", "NodeInventory"}
    message = world.events("ForeignMigInstance")[0]["message"]
    assert "gpu-2 (GPU-" in message
    assert "1g.20gb at memory slice 6" in message
    assert "adoptForeign: true" in message
    plugin.report(changed(foreign, 3, enabled=True))
    world.assert_quiet()
    assert len(world.events("ForeignMigInstance")) == 2
    plugin.report(h100)
    world.wait(lambda: not taints(world, "gpu-2"))
    assert world.slice_writes() - before == {"update": 2}


def test_a_refused_placement_is_told_with_both_views(world: World, h100: Machine) -> None:
    plugin = world.add_node("n1", h100)
    world.start_controller()
    world.published("n1", 208)
    both = "NVML says insufficient resources; it lists 1g.10gb at 0; this driver made nothing there"
    refused = RefusedPlacement(profile("3g.40gb").id, MigPlacement(4, 4), both)
    plugin.report(changed(h100, 1, enabled=True, refused=(refused,)))
    world.wait(lambda: taints(world, "gpu-1-mig-3g40gb-9-4") == ["gpu.nvidia.com/mig-placement-refused"])
    world.wait(lambda: len(world.events("MigPlacementRefused")) == 2)
    assert world.events("MigPlacementRefused")[0]["message"] == f"gpu-1-mig-3g40gb-9-4 is tainted: {both}"
    world.assert_quiet()


def test_an_upgrade_to_divisible_gpus_taints_no_busy_one(world: World, h100: Machine) -> None:
    world.add_node("n1", h100)
    old = world.start_controller(policy=policy(MigMode.OFF))
    world.published("n1", 8)
    claim = world.allocate("n1", "gpu-3")
    world.stop_controller(old)
    world.start_controller()
    world.published("n1", 208)
    assert taints(world, "gpu-3") == []
    assert world.device("n1", "gpu-3")["consumesCounters"]
    assert world.events("AllocatedDeviceUnavailable") == []
    world.deallocate(claim)
    world.assert_quiet()


def test_a_gpu_whose_mig_device_is_held_is_not_offered_whole_after_a_change_of_policy(
    world: World, h100: Machine
) -> None:
    world.add_node("n1", h100)
    old = world.start_controller()
    world.published("n1", 208)
    claim = world.allocate("n1", "gpu-3-mig-1g10gb-19-6")
    world.stop_controller(old)
    world.start_controller(policy=policy(MigMode.OFF))
    world.published("n1", 8)
    assert "gpu-3" not in world.devices("n1")
    assert taints(world, "gpu-3-mig-1g10gb-19-6") == ["gpu.nvidia.com/unavailable"]
    world.wait(lambda: world.events("AllocatedDeviceUnavailable"))
    assert "because they overlap: gpu-3" in world.events("AllocatedDeviceUnavailable")[0]["message"]
    world.deallocate(claim)
    world.wait(lambda: world.devices("n1") == [f"gpu-{minor}" for minor in range(8)])


def test_taints_have_the_drivers_name(world: World, h100: Machine) -> None:
    world.add_node("n1", changed(h100, 0, enabled=True, instances=(instance("7g.80gb", 0, foreign=True),)))
    world.start_controller(policy=DevicePolicy(driver="gpu.example.com"))
    world.published("n1", 208)
    assert taints(world, "gpu-0") == ["gpu.example.com/foreign-mig-instance"]


# -- the pure function ------------------------------------------------------------------------------------------------


def reasons(of: Machine, by: DevicePolicy) -> list[tuple[str, str]]:
    return [(problem.reason, problem.message) for problem in mig_problems(of, by, "node-1")]


def test_adopted_instances_and_those_of_claims_are_no_problem() -> None:
    found = machine(mig_gpu(enabled=True, instances=(instance("1g.10gb", 0), instance("1g.10gb", 1, foreign=True))))
    assert [reason for reason, _ in reasons(found, policy(None))] == ["ForeignMigInstance"]
    assert "at memory slice 0" not in reasons(found, policy(None))[0][1]
    assert reasons(found, policy(None, adopt=True)) == []
    assert reasons(found, policy(MigMode.STATIC)) == []


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (MigMode.OFF, "gpu-0 (GPU-00000000-0000-0000-0000-000000000000) is not offered: its MIG mode is on and a rule"),
        (MigMode.STATIC, "its MIG mode is on and it has no MIG devices"),
        (None, "its MIG mode is on and it has no MIG devices"),
    ],
)
def test_a_gpu_that_offers_nothing_is_told(mode: MigMode | None, message: str) -> None:
    found = machine(mig_gpu(profiles=A100, enabled=True, **AMPERE), mig_gpu(1, A100, **AMPERE))
    ((reason, said),) = reasons(found, policy(mode))
    assert reason == "MigWithoutDevices"
    assert message in said


def test_a_dynamic_gpu_without_profiles_is_told_when_its_mode_is_on() -> None:
    on, off = (
        replace(mig_gpu(minor), mig=MigState(enabled=enabled, pending=enabled))
        for minor, enabled in enumerate((True, False))
    )
    ((reason, said),) = reasons(machine(on, off), policy(MigMode.DYNAMIC))
    assert reason == "MigWithoutDevices"
    assert said.startswith("gpu-0 ")
    assert "NVML lists no MIG profile of it" in said


def test_a_refused_profile_that_is_not_known_is_told_by_its_number() -> None:
    found = machine(mig_gpu(refused=(RefusedPlacement(99, MigPlacement(2, 1), "why"),)))
    assert "profile 99 at memory slice 2 of gpu-0" in reasons(found, policy(None))[0][1]
