"""Pods on shares of GPUs in the embedded cluster: as the device plugin's replicas, and by what claims ask for."""

from __future__ import annotations

import uuid
from collections import Counter

from dra_driver.kube.interface import PODS, RESOURCE_CLAIMS, Obj
from dra_driver.simulation.controllers.objects import ClaimController
from dra_driver.simulation.scheduler.scheduler import Scheduler
from dra_driver.simulation.store import EmbeddedApi
from dra_driver.simulation.store.features import OFF_BY_DEFAULT
from tests.allocator.builders import request, shared_gpu
from tests.simulation.cluster.objects import NAMESPACE, by_template, cluster, condition, finish, get_pod, pod, template

GPU = "nvidia.com/gpu"


def settle(api: EmbeddedApi, rounds: int = 3) -> None:
    scheduler, controller = Scheduler(api, patience=0.0), ClaimController(api)
    for _ in range(rounds):
        controller.run_once()
        scheduler.run_once()


def limited(name: str, *counts: int) -> Obj:
    """A pod with a container for each count of GPUs."""
    made = pod(name)
    made["spec"]["containers"] = [
        {"name": f"c{number}", "image": "busybox", "resources": {"limits": {GPU: count}}}
        for number, count in enumerate(counts)
    ]
    return made


def results(api: EmbeddedApi) -> list[Obj]:
    found: list[Obj] = []
    for claim in api.list(RESOURCE_CLAIMS, NAMESPACE).items:
        found += (claim.get("status") or {}).get("allocation", {}).get("devices", {}).get("results", [])
    return found


def waits(api: EmbeddedApi, name: str) -> str:
    waiting = get_pod(api, name)
    assert "nodeName" not in waiting["spec"]
    message: str = condition(waiting, "PodScheduled")["message"]
    return message


def test_four_pods_share_a_gpu_and_the_fifth_waits_until_one_ends() -> None:
    api = cluster(gpus=1, nodes=("n0",), device=shared_gpu, extendedResourceName=GPU)
    for number in range(5):
        api.create(PODS, limited(f"p{number}", 1))
    settle(api)
    assert [entry["consumedCapacity"] for entry in results(api)] == [{"memory": "0", "shares": "1"}] * 4
    assert len({uuid.UUID(entry["shareID"]) for entry in results(api)}) == 4
    told = waits(api, "p4")
    assert "1 device exists, 1 short of capacity (shares 0 of 4 left, asked 1), in use by claims demo/p" in told
    finish(api, "p2")
    settle(api)
    assert get_pod(api, "p4")["spec"]["nodeName"] == "n0"
    assert len(results(api)) == 4


def test_thirty_two_pods_run_on_eight_gpus() -> None:
    api = cluster(gpus=8, nodes=("n0",), device=shared_gpu, extendedResourceName=GPU)
    for number in range(33):
        api.create(PODS, limited(f"p{number:02}", 1))
    settle(api)
    assert set(Counter(entry["device"] for entry in results(api)).values()) == {4}
    assert len(results(api)) == 32
    assert "8 short of capacity" in waits(api, "p32")


def test_two_of_one_container_are_shares_of_two_gpus() -> None:
    """One request has at most one share of a device: so does kube-scheduler."""
    api = cluster(gpus=2, nodes=("n0",), device=shared_gpu, extendedResourceName=GPU)
    api.create(PODS, limited("two", 2))
    api.create(PODS, limited("three", 3))
    settle(api)
    assert [(entry["request"], entry["device"]) for entry in results(api)] == [
        ("container-0-request-0", "gpu-0"),
        ("container-0-request-0", "gpu-1"),
    ]
    assert "2 would fit, but 3 are asked per node, and a request has one share of a device at most" in waits(
        api, "three"
    )


def test_two_containers_share_a_gpu() -> None:
    api = cluster(gpus=1, nodes=("n0",), device=shared_gpu, extendedResourceName=GPU)
    api.create(PODS, limited("p", 1, 1))
    settle(api)
    assert [(entry["request"], entry["device"]) for entry in results(api)] == [
        ("container-0-request-0", "gpu-0"),
        ("container-1-request-0", "gpu-0"),
    ]


def test_pods_spread_over_nodes_by_shares() -> None:
    api = cluster(template("one", request()), gpus=1, device=shared_gpu)
    for number in range(4):
        api.create(PODS, pod(f"p{number}", by_template(template="one")))
    settle(api)
    assert [get_pod(api, f"p{number}")["spec"]["nodeName"] for number in range(4)] == ["n0", "n1", "n0", "n1"]


def test_more_shares_than_one_request_may_have() -> None:
    many = template("many", request(capacity={"requests": {"shares": "3"}}))
    api = cluster(many, gpus=1, nodes=("n0",), device=shared_gpu)
    api.create(PODS, pod("p", by_template(template="many")))
    settle(api)
    assert "1 given in smaller shares (asked shares 3, at most 1 per request)" in waits(api, "p")


def test_without_the_feature_a_device_is_given_whole() -> None:
    off = EmbeddedApi(disabled_features=OFF_BY_DEFAULT | {"DRAConsumableCapacity"})
    one = template("one", request(capacity={"requests": {"shares": "1"}}))
    api = cluster(one, gpus=1, nodes=("n0",), device=shared_gpu, api=off)
    for name in ("first", "second"):
        api.create(PODS, pod(name, by_template(template="one")))
    settle(api)
    (given,) = results(api)
    assert "shareID" not in given
    assert "consumedCapacity" not in given
    assert "1 in use by claim demo/first-gpu-" in waits(api, "second")
