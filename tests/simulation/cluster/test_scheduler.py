"""The scheduler and the claim controller together on the embedded API, round by round."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from dra_driver.kube.interface import (
    DEVICE_CLASSES,
    EVENTS,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    Conflict,
    Obj,
    Unavailable,
)
from dra_driver.simulation.controllers.objects import ClaimController
from dra_driver.simulation.scheduler.commit import FINALIZER, SchedulerApi
from dra_driver.simulation.scheduler.scheduler import Scheduler
from dra_driver.simulation.store import EmbeddedApi
from tests.allocator.builders import DRIVER, claim, device_class, gpu, request, resource_slice
from tests.simulation.cluster.objects import (
    NAMESPACE,
    by_name,
    by_template,
    cluster,
    condition,
    finish,
    get_pod,
    node,
    pod,
    template,
)


def settle(api: EmbeddedApi, rounds: int = 3) -> None:
    scheduler, controller = Scheduler(api, patience=0.0), ClaimController(api)
    for _ in range(rounds):
        controller.run_once()
        scheduler.run_once()


def claims(api: EmbeddedApi) -> list[Obj]:
    return api.list(RESOURCE_CLAIMS, NAMESPACE).items


def held(claim_object: Obj) -> list[str]:
    return [
        f"{entry['pool']}/{entry['device']}" for entry in claim_object["status"]["allocation"]["devices"]["results"]
    ]


def wait_for(check: Callable[[], bool], timeout: float = 5.0) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def test_a_pod_with_a_template_gets_a_claim_a_device_and_a_node() -> None:
    api = cluster(template("single", request(), metadata={"labels": {"team": "a"}, "annotations": {"note": "b"}}))
    api.create(PODS, pod("p", by_template()))
    settle(api)
    placed = get_pod(api, "p")
    (made,) = claims(api)
    assert placed["spec"]["nodeName"] == "n0"
    assert condition(placed, "PodScheduled")["status"] == "True"
    assert placed["status"]["resourceClaimStatuses"] == [{"name": "gpu", "resourceClaimName": made["metadata"]["name"]}]
    assert made["metadata"]["name"].startswith("p-gpu-")
    assert made["metadata"]["annotations"] == {"note": "b", "resource.kubernetes.io/pod-claim-name": "gpu"}
    assert made["metadata"]["labels"] == {"team": "a"}
    assert made["metadata"]["finalizers"] == [FINALIZER]
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Pod", placed["metadata"]["uid"], True)
    assert held(made) == ["n0/gpu-0"]
    assert made["status"]["reservedFor"] == [{"resource": "pods", "name": "p", "uid": placed["metadata"]["uid"]}]
    assert made["status"]["allocation"]["allocationTimestamp"].endswith("Z")


def test_pods_spread_and_never_share_a_device() -> None:
    api = cluster(template("single", request()))
    for number in range(5):
        api.create(PODS, pod(f"p{number}", by_template()))
    settle(api)
    nodes = [get_pod(api, f"p{number}")["spec"].get("nodeName") for number in range(5)]
    assert nodes == ["n0", "n1", "n0", "n1", None]
    devices = [device for entry in claims(api) if entry.get("status", {}).get("allocation") for device in held(entry)]
    assert sorted(devices) == ["n0/gpu-0", "n0/gpu-1", "n1/gpu-0", "n1/gpu-1"]


def test_a_shared_claim_keeps_its_pods_together() -> None:
    api = cluster()
    api.create(RESOURCE_CLAIMS, claim("shared", request()))
    api.create(PODS, pod("a", by_name("shared")))
    api.create(PODS, pod("b", by_name("shared")))
    settle(api)
    (shared,) = claims(api)
    assert [entry["name"] for entry in shared["status"]["reservedFor"]] == ["a", "b"]
    assert get_pod(api, "a")["spec"]["nodeName"] == get_pod(api, "b")["spec"]["nodeName"]


def test_an_unschedulable_pod_says_why_once_and_is_retried() -> None:
    api = cluster(template("big", request(count=3)))
    api.create(PODS, pod("p", by_template(template="big")))
    settle(api)
    waiting = get_pod(api, "p")
    (made,) = claims(api)
    told = condition(waiting, "PodScheduled")
    assert (told["status"], told["reason"]) == ("False", "Unschedulable")
    assert told["message"] == (
        f"0/2 nodes are available: claim demo/{made['metadata']['name']}, request gpu: 2 nodes: "
        "4 devices exist, 4 would fit, but 3 are asked per node"
    )
    before = api.writes()
    settle(api)
    assert api.writes() == before
    api.create(RESOURCE_SLICES, resource_slice("n1", [gpu(7)], name="more", pool="n1-more"))
    settle(api)
    assert get_pod(api, "p")["spec"]["nodeName"] == "n1"


def test_a_finished_pod_frees_its_device_for_the_next() -> None:
    api = cluster(template("single", request()), gpus=1, nodes=("n0",))
    api.create(PODS, pod("first", by_template()))
    api.create(PODS, pod("second", by_template()))
    settle(api)
    told = condition(get_pod(api, "second"), "PodScheduled")["message"]
    assert "1 in use by claim demo/first-gpu-" in told
    finish(api, "first")
    settle(api)
    assert get_pod(api, "second")["spec"]["nodeName"] == "n0"
    assert [entry["metadata"]["name"].startswith("second-") for entry in claims(api)] == [True]


def test_a_users_claim_is_deallocated_but_stays() -> None:
    api = cluster()
    api.create(RESOURCE_CLAIMS, claim("mine", request()))
    api.create(PODS, pod("p", by_name("mine")))
    settle(api)
    api.delete(PODS, "p", NAMESPACE, grace_period_seconds=0)
    settle(api)
    (mine,) = claims(api)
    assert not mine.get("status")
    assert not mine["metadata"].get("finalizers")


def test_a_claim_in_use_waits_for_its_pods_when_deleted() -> None:
    api = cluster()
    api.create(RESOURCE_CLAIMS, claim("mine", request()))
    api.create(PODS, pod("p", by_name("mine")))
    settle(api)
    api.delete(RESOURCE_CLAIMS, "mine", NAMESPACE)
    api.create(PODS, pod("late", by_name("mine")))
    settle(api)
    (mine,) = claims(api)
    assert held(mine)
    assert condition(get_pod(api, "late"), "PodScheduled")["message"] == "ResourceClaim demo/mine is being deleted"
    finish(api, "p")
    settle(api)
    assert claims(api) == []


def test_extended_resources_become_a_claim() -> None:
    api = cluster(extendedResourceName="nvidia.com/gpu")
    limits = {"limits": {"nvidia.com/gpu": "2", "cpu": "1", "hugepages-2Mi": "2Mi"}}
    api.create(PODS, pod("p", container={"resources": limits}))
    settle(api)
    placed = get_pod(api, "p")
    (made,) = claims(api)
    assert made["metadata"]["name"].startswith("p-extended-resources-")
    assert made["metadata"]["annotations"] == {"resource.kubernetes.io/extended-resource-claim": "true"}
    assert made["spec"]["devices"]["requests"] == [
        {
            "name": "container-0-request-0",
            "exactly": {"deviceClassName": DRIVER, "allocationMode": "ExactCount", "count": 2},
        }
    ]
    assert held(made) == ["n0/gpu-0", "n0/gpu-1"]
    assert placed["status"]["extendedResourceClaimStatus"] == {
        "resourceClaimName": made["metadata"]["name"],
        "requestMappings": [
            {"containerName": "main", "resourceName": "nvidia.com/gpu", "requestName": "container-0-request-0"}
        ],
    }
    finish(api, "p")
    settle(api)
    assert claims(api) == []


def test_a_class_can_be_asked_for_by_its_implicit_resource_name() -> None:
    api = cluster()
    name = f"deviceclass.resource.kubernetes.io/{DRIVER}"
    api.create(PODS, pod("p", container={"resources": {"limits": {name: 1}}}))
    settle(api)
    assert get_pod(api, "p")["spec"]["nodeName"] == "n0"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"example.com/fpga": 1}, "Insufficient example.com/fpga: no DeviceClass stands for it (container main)"),
        ({"nvidia.com/gpu": "1500m"}, "container main: nvidia.com/gpu must be a whole number, not 1500m"),
    ],
)
def test_extended_resources_that_cannot_be_had(limits: Obj, message: str) -> None:
    api = cluster(extendedResourceName="nvidia.com/gpu")
    api.create(PODS, pod("p", container={"resources": {"limits": limits}}))
    settle(api)
    assert condition(get_pod(api, "p"), "PodScheduled")["message"] == message
    assert claims(api) == []


@pytest.mark.parametrize(
    ("nodes", "spec", "message"),
    [
        ([node("a", ready=False)], {}, "1 node(s) were not ready"),
        ([node("a", unschedulable=True)], {}, "1 node(s) were unschedulable"),
        ([node("a")], {"nodeSelector": {"gpu": "yes"}}, "1 node(s) didn't match the pod's nodeSelector"),
        (
            [node("a", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])],
            {},
            "1 node(s) had untolerated taint k=v:NoSchedule",
        ),
        (
            [node("a", taints=[{"key": "k", "effect": "NoSchedule"}])],
            {"tolerations": [{"key": "k", "operator": "Exists"}]},
            None,
        ),
        ([node("a", labels={"gpu": "yes"})], {"nodeSelector": {"gpu": "yes"}}, None),
    ],
)
def test_nodes_are_filtered(nodes: list[Obj], spec: dict[str, Obj], message: str | None) -> None:
    api = cluster(nodes=())
    for entry in nodes:
        created = api.create(NODES, entry)
        api.update(NODES, {**created, "status": entry["status"]}, subresource="status")
    api.create(PODS, pod("p", **spec))
    settle(api)
    if message is None:
        assert get_pod(api, "p")["spec"]["nodeName"] == "a"
    else:
        assert condition(get_pod(api, "p"), "PodScheduled")["message"] == f"0/1 nodes are available: {message}"


def test_a_better_alternative_beats_an_emptier_node() -> None:
    big = {"name": "big", "deviceClassName": DRIVER, "count": 3}
    small = {"name": "small", "deviceClassName": DRIVER}
    api = cluster(template("list", {"name": "gpu", "firstAvailable": [big, small]}), gpus=1, nodes=("n0",))
    created = api.create(NODES, node("rich"))
    api.update(NODES, {**created, "status": node("rich")["status"]}, subresource="status")
    api.create(RESOURCE_SLICES, resource_slice("rich", [gpu(number) for number in range(4)]))
    api.create(RESOURCE_CLAIMS, claim("other", request("gpu", "device.attributes['gpu.nvidia.com'].uuid == 'GPU-3'")))
    api.create(PODS, pod("first", by_name("other")))
    settle(api)
    api.create(PODS, pod("p", by_template(template="list")))
    settle(api)
    assert get_pod(api, "p")["spec"]["nodeName"] == "rich"


def test_pods_that_are_not_ours_are_left_alone() -> None:
    api = cluster()
    api.create(PODS, pod("other", schedulerName="kueue"))
    api.create(PODS, pod("gated", schedulingGates=[{"name": "wait"}]))
    settle(api)
    assert all("nodeName" not in get_pod(api, name)["spec"] for name in ("other", "gated"))


def test_a_missing_template_and_a_missing_claim_are_named() -> None:
    api = cluster()
    api.create(PODS, pod("a", by_template(template="nope")))
    api.create(PODS, pod("b", by_name("nope")))
    settle(api)
    assert "waiting for the claim of 'gpu'" in condition(get_pod(api, "a"), "PodScheduled")["message"]
    assert condition(get_pod(api, "b"), "PodScheduled")["message"] == "ResourceClaim demo/nope does not exist"


def test_a_selector_error_is_told_and_mended_by_a_new_class() -> None:
    api = cluster(template("odd", request("gpu", class_name="odd")))
    api.create(PODS, pod("p", by_template(template="odd")))
    settle(api)
    assert "there is no DeviceClass 'odd'" in condition(get_pod(api, "p"), "PodScheduled")["message"]
    api.create(DEVICE_CLASSES, device_class("odd", "device.attributes['gpu.nvidia.com'].nope == 1"))
    settle(api)
    assert "no such key: nope" in condition(get_pod(api, "p"), "PodScheduled")["message"]


def test_the_threads_do_it_all_and_stop() -> None:
    api = cluster(template("single", request()), template("big", request(count=9)))
    scheduler, controller = Scheduler(api), ClaimController(api)
    scheduler.start()
    controller.start()
    try:
        api.create(PODS, pod("p", by_template()))
        api.create(PODS, pod("q", by_template(template="big")))
        wait_for(lambda: bool(get_pod(api, "p")["spec"].get("nodeName")))
        finish(api, "p")
        wait_for(lambda: [entry["metadata"]["name"][:5] for entry in claims(api)] == ["q-gpu"])

        def told() -> set[tuple[str, str]]:
            return {(event["reason"], event["involvedObject"]["name"]) for event in api.list(EVENTS, NAMESPACE).items}

        wait_for(lambda: {("Scheduled", "p"), ("FailedScheduling", "q")} <= told())
    finally:
        scheduler.stop()
        controller.stop()
    assert api.open_watches == 0


class Flaky:
    """The API, with one call that fails at the worst moment."""

    def __init__(self, api: EmbeddedApi, method: str, subresource: str | None = None) -> None:
        self._api = api
        self._method = method
        self._subresource = subresource
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._api, name)
        if name != self._method or self.failed:
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            if self._subresource is not None and options.get("subresource") != self._subresource:
                return real(*arguments, **options)
            self.failed = True
            raise Unavailable("the connection broke")

        return call


@pytest.mark.parametrize(("method", "subresource"), [("update", "status"), ("patch", "status"), ("bind", None)])
def test_a_placement_that_broke_off_is_finished_without_a_second_claim(method: str, subresource: str | None) -> None:
    api = cluster(extendedResourceName="nvidia.com/gpu", gpus=1)
    api.create(PODS, pod("p", container={"resources": {"limits": {"nvidia.com/gpu": 1}}}))
    flaky = Flaky(api, method, subresource)
    scheduler = Scheduler(cast(SchedulerApi, flaky))
    assert not scheduler.run_once()
    assert flaky.failed
    assert scheduler.run_once()
    assert get_pod(api, "p")["spec"]["nodeName"]
    assert len(claims(api)) == 1


def test_a_claim_that_changed_while_it_was_placed_is_tried_again() -> None:
    """Two rounds read the same claim; the slower one must not overwrite the faster one's allocation."""
    api = cluster(gpus=1, nodes=("n0",))
    api.create(RESOURCE_CLAIMS, claim("a", request()))
    stale = api.get(RESOURCE_CLAIMS, "a", NAMESPACE)
    api.create(PODS, pod("p", by_name("a")))
    settle(api)
    with pytest.raises(Conflict):
        api.update(RESOURCE_CLAIMS, {**stale, "status": {}}, subresource="status")
    assert held(claims(api)[0]) == ["n0/gpu-0"]


def test_a_controller_that_died_after_the_claim_was_made_finds_it_again() -> None:
    api = cluster(template("single", request()))
    api.create(PODS, pod("p", by_template()))
    flaky = Flaky(api, "patch", "status")
    controller = ClaimController(cast(EmbeddedApi, flaky))
    assert not controller.run_once()
    assert controller.run_once()
    assert len(claims(api)) == 1
    assert get_pod(api, "p")["status"]["resourceClaimStatuses"][0]["name"] == "gpu"
