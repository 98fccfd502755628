"""Pods on shares from end to end: ConfigMap, controller, published slices, and a scheduler that reads them."""

from __future__ import annotations

from collections import Counter

import pytest

from dra_driver.hardware.model import Machine
from dra_driver.kube.interface import DEVICE_CLASSES, NAMESPACES, NODES, PODS, RESOURCE_CLAIMS, Obj
from dra_driver.simulation.controllers.objects import ClaimController
from dra_driver.simulation.manifests import device_classes
from dra_driver.simulation.scheduler.scheduler import Scheduler
from tests.controller.sharing_cluster import FOUR, TWO, Cluster
from tests.controller.world import World
from tests.simulation.cluster.objects import NAMESPACE, condition, finish, get_pod, node, pod

GPU, RENAMED = "nvidia.com/gpu", "nvidia.com/gpu.shared"


class Pods:
    """Pods that ask by limits, and what they got."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._api = world.api
        self._scheduler, self._controller = Scheduler(self._api, patience=0.0), ClaimController(self._api)
        self._api.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
        for device_class in device_classes():
            self._api.create(DEVICE_CLASSES, device_class)

    def make_ready(self, name: str) -> None:
        self._api.patch(NODES, name, {"status": node(name)["status"]}, subresource="status")

    def create(self, *names: str, resource: str = GPU) -> None:
        for name in names:
            self._api.create(PODS, pod(name, container={"resources": {"limits": {resource: 1}}}))

    def settle(self) -> None:
        for _ in range(3):
            self._controller.run_once()
            self._scheduler.run_once()
        # Claims and the ConfigMap come by different watches; what follows needs their order.
        self._world.wait_for_claims({(result["pool"], result["device"]) for result in self.results()})

    def finish(self, *names: str) -> None:
        for name in names:
            finish(self._api, name)
        self.settle()

    def running(self, *names: str) -> list[str]:
        return [name for name in names if get_pod(self._api, name)["spec"].get("nodeName")]

    def waits(self, name: str) -> str:
        return str(condition(get_pod(self._api, name), "PodScheduled")["message"])

    def results(self) -> list[Obj]:
        claims = self._api.list(RESOURCE_CLAIMS, NAMESPACE).items
        allocations = ((claim.get("status") or {}).get("allocation") or {} for claim in claims)
        return [entry for each in allocations for entry in (each.get("devices") or {}).get("results", [])]

    def device_of(self, name: str) -> str:
        claims = self._api.list(RESOURCE_CLAIMS, NAMESPACE).items
        mine = next(claim for claim in claims if claim["metadata"]["name"].startswith(f"{name}-"))
        return str(mine["status"]["allocation"]["devices"]["results"][0]["device"])

    def holders(self) -> Counter[str]:
        return Counter(str(entry["device"]) for entry in self.results())


@pytest.fixture
def cluster(world: World, a100: Machine) -> Cluster:
    world.add_node("n1", a100)
    return Cluster(world)


@pytest.fixture
def pods(world: World, cluster: Cluster) -> Pods:
    pods = Pods(world)
    pods.make_ready("n1")
    return pods


def test_thirty_two_pods_run_on_eight_gpus_and_the_next_waits(cluster: Cluster, pods: Pods) -> None:
    cluster.apply(any=FOUR)
    cluster.start()
    cluster.shared("n1", 8, 4)
    names = [f"p{number:02}" for number in range(33)]
    pods.create(*names)
    pods.settle()
    assert len(pods.running(*names)) == 32
    assert pods.holders() == Counter({f"gpu-{minor}": 4 for minor in range(8)})
    assert all(entry["consumedCapacity"]["shares"] == "1" for entry in pods.results())
    assert all(entry["consumedCapacity"]["memory"] == "0" for entry in pods.results())
    (last,) = set(names) - set(pods.running(*names))
    assert "8 short of capacity" in pods.waits(last)
    pods.finish(pods.running(*names)[0])
    assert pods.running(last) == [last]


def test_fewer_shares_are_never_more_pods_than_a_gpu_is_for(cluster: Cluster, pods: Pods) -> None:
    cluster.apply(any=FOUR)
    cluster.start()
    cluster.shared("n1", 8, 4)
    before = [f"a{number:02}" for number in range(32)]
    pods.create(*before)
    pods.settle()
    cluster.apply(any=TWO)
    cluster.world.wait(lambda: all(cluster.tainted("n1", f"gpu-{minor}") for minor in range(8)))
    later = [f"b{number:02}" for number in range(16)]
    pods.create(*later)
    of_first = [name for name in before if pods.device_of(name) == "gpu-0"]
    pods.finish(*of_first[:3])
    assert pods.running(*later) == []  # gpu-0 has one holder, who still counts on the sharing of its time
    pods.finish(of_first[3])
    cluster.world.wait(lambda: cluster.shares("n1")["gpu-0"] == "2")
    pods.settle()
    assert len(pods.running(*later)) == 2
    assert pods.holders() == Counter({f"gpu-{minor}": 4 for minor in range(1, 8)}) + Counter({"gpu-0": 2})


def test_renamed_shares_are_had_by_their_own_name_only(cluster: Cluster, pods: Pods) -> None:
    cluster.apply(any=FOUR.replace("renameByDefault: false", "renameByDefault: true"))
    cluster.start()
    cluster.shared("n1", 8, 4)
    pods.create("whole")
    pods.create("shared", resource=RENAMED)
    pods.settle()
    assert pods.running("whole", "shared") == ["shared"]


def test_a_whole_gpu_in_use_gets_no_second_pod_when_it_becomes_shareable(cluster: Cluster, pods: Pods) -> None:
    cluster.start()
    cluster.world.published("n1", 8)
    first = [f"a{number}" for number in range(8)]
    pods.create(*first)
    pods.settle()
    assert pods.running(*first) == first
    cluster.apply(any=FOUR)
    cluster.world.wait(lambda: all(cluster.tainted("n1", f"gpu-{minor}") for minor in range(8)))
    pods.create("late")
    pods.settle()
    assert pods.running("late") == []
    pods.finish("a0")
    cluster.shared("n1", 1, 4)
    pods.settle()
    assert pods.running("late") == ["late"]


def test_replica_devices_carry_as_many_pods(a100: Machine) -> None:
    world = World(features_off=frozenset({"DRAConsumableCapacity"}))
    try:
        world.add_node("n1", a100)
        cluster, pods = Cluster(world), Pods(world)
        pods.make_ready("n1")
        cluster.apply(any=FOUR)
        cluster.start()
        world.published("n1", 32)
        names = [f"p{number:02}" for number in range(33)]
        pods.create(*names)
        pods.settle()
        assert len(pods.running(*names)) == 32
    finally:
        world.close()


@pytest.mark.parametrize("off", [frozenset[str](), frozenset({"DRAConsumableCapacity"})], ids=["shares", "replicas"])
def test_a_mig_placement_and_shares_of_its_gpu_exclude_each_other(off: frozenset[str], h100: Machine) -> None:
    world = World(features_off=off)
    try:
        world.add_node("n1", Machine(h100.driver_version, h100.cuda_driver_version, h100.gpus[:1]))
        cluster, pods = Cluster(world), Pods(world)
        pods.make_ready("n1")
        cluster.apply(any=FOUR)
        cluster.start()
        cluster.told("n1", "SharingInForce")
        world.wait(lambda: any("-mig-" in name for name in world.devices("n1")))
        pods.create("a", "b")
        pods.settle()
        pods.create("m", resource="deviceclass.resource.kubernetes.io/mig.nvidia.com")
        pods.settle()
        assert pods.running("a", "b", "m") == ["a", "b"]
        pods.finish("a")
        assert pods.running("m") == []
        pods.finish("b")
        assert pods.running("m") == ["m"]
        pods.create("c")
        pods.settle()
        assert pods.running("c") == []
    finally:
        world.close()
