"""Shares by rules of our own, the forms in which they are published, and what is told of both."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from controller.dry_run import dry_run
from dra_driver.devices.policy import DevicePolicy
from dra_driver.devices.selector import GpuSelector
from dra_driver.devices.sharing import Fractions, Replicas, SharingPolicy, SharingRule
from dra_driver.hardware.model import Machine
from tests.controller.sharing_cluster import FOUR, NAME, TIME_SLICING, TWO, Cluster, Meddled
from tests.controller.world import DRIVER, World


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
