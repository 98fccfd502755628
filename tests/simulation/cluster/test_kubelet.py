"""The fake kubelet keeps the real one's rules: claims, containers, sharing, errors, restarts, wipes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dra_driver.errors import DeviceInUse
from dra_driver.kube.interface import EVENTS, NODES, PODS, RESOURCE_CLAIMS, RESOURCE_SLICES, Obj, Unavailable
from dra_driver.simulation.kubelet import KubeletOptions
from dra_driver.simulation.kubelet.claims import PodClaimError, container_requests, pod_claims
from tests.kubelet_plugin.fakes import (
    DRIVER,
    FAST,
    NODE,
    Cluster,
    InProcessPlugin,
    ScriptedPreparer,
    eventually,
    short_folder,
)


class Node:
    """A cluster with one registered plugin."""

    def __init__(self, root: Path, options: KubeletOptions = FAST) -> None:
        self.cluster = Cluster(root, options)
        self.api = self.cluster.api
        self.kubelet = self.cluster.kubelet
        self.preparer = ScriptedPreparer(self.cluster.cdi_dir)
        self.plugin = InProcessPlugin(root, self.preparer, pod_uid="uid-1")

    def start(self) -> None:
        self.kubelet.start()
        self.plugin.start()
        assert self.kubelet.wait_for_plugin(DRIVER)

    def stop(self) -> None:
        self.kubelet.stop()
        self.plugin.stop(grace=0)

    def events(self, reason: str) -> list[Obj]:
        return [event for event in self.api.list(EVENTS).items if event["reason"] == reason]

    def claims_prepared(self) -> list[tuple[str, ...]]:
        return [tuple(claim.name for claim in call) for call in self.preparer.prepare_calls]


@pytest.fixture
def node() -> Iterator[Node]:
    with short_folder() as root:
        node = Node(root)
        node.start()
        yield node
        node.stop()


def delete_and_wait(node: Node, pod: str) -> None:
    node.api.delete(PODS, pod, "default")
    eventually(lambda: node.cluster.gone(pod))


def slice_of(name: str, node_name: str, driver: str = DRIVER) -> Obj:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": name},
        "spec": {
            "driver": driver,
            "nodeName": node_name,
            "pool": {"name": node_name, "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0"}],
        },
    }


def slice_names(node: Node) -> set[str]:
    return {item["metadata"]["name"] for item in node.api.list(RESOURCE_SLICES).items}


def test_a_pod_runs_with_its_device_and_leaves_nothing_behind(node: Node) -> None:
    claim = node.cluster.claim("c")
    pod = node.cluster.pod("p", "c")
    eventually(lambda: node.cluster.phase("p") == "Running")

    view = node.kubelet.container_view(pod["metadata"]["uid"], "main")
    assert view is not None
    assert [device.path for device in view.device_nodes] == ["/dev/nvidia0"]
    assert view.env == {"CLAIM": claim["metadata"]["uid"]}
    on_disk = json.loads((node.cluster.root / f"containers/{pod['metadata']['uid']}/main.json").read_text())
    assert on_disk["device_nodes"][0]["major"] == 195
    status = node.api.get(PODS, "p", "default")["status"]
    assert status["containerStatuses"][0]["ready"] is True
    assert {"type": "Ready", "status": "True"}.items() <= status["conditions"][2].items()

    node.api.delete(PODS, "p", "default")
    eventually(lambda: node.cluster.gone("p"))
    assert not node.preparer.prepared
    assert not list(node.cluster.cdi_dir.iterdir())
    assert [call.operation for call in node.kubelet.calls] == ["prepare", "unprepare"]
    state = json.loads((node.cluster.root / "dra_manager_state").read_text())
    assert state == {"claims": []}
    assert node.kubelet.container_view(pod["metadata"]["uid"], "main") is not None  # kept for who asks later


def test_the_node_is_made_ready(node: Node) -> None:
    conditions = node.api.get(NODES, NODE)["status"]["conditions"]
    assert [(condition["type"], condition["status"]) for condition in conditions] == [("Ready", "True")]


def test_one_claim_for_two_pods_is_prepared_once_and_unprepared_after_the_second(node: Node) -> None:
    node.cluster.claim("c")
    node.cluster.pod("first", "c")
    eventually(lambda: node.cluster.phase("first") == "Running")
    second = node.cluster.pod("second", "c")
    eventually(lambda: node.cluster.phase("second") == "Running")
    assert len(node.preparer.prepare_calls) == 1
    view = node.kubelet.container_view(second["metadata"]["uid"], "main")
    assert view is not None
    assert view.device_nodes

    node.api.delete(PODS, "first", "default")
    eventually(lambda: node.cluster.gone("first"))
    assert node.preparer.unprepare_calls == []
    node.api.delete(PODS, "second", "default")
    eventually(lambda: node.cluster.gone("second"))
    assert len(node.preparer.unprepare_calls) == 1


def test_all_claims_of_a_pod_go_in_one_call_and_a_failure_sends_all_again(node: Node) -> None:
    node.cluster.claim("a")
    node.cluster.claim("b")
    node.preparer.errors["b"] = DeviceInUse("gpu-1 is held by claim x/y", hint="delete that pod")
    node.cluster.pod("p", "a", "b")
    eventually(lambda: len(node.preparer.prepare_calls) >= 3)
    assert set(node.claims_prepared()) == {("a", "b")}
    assert node.cluster.phase("p") == "Pending"
    event = eventually(lambda: node.events("FailedPrepareDynamicResources"))[0]
    expected = "Failed to prepare dynamic resources: prepare dynamic resources: NodePrepareResources failed for "
    assert event["message"].startswith(f"{expected}ResourceClaim b: ")
    assert "gpu-1 is held by claim x/y (delete that pod)" in event["message"]
    assert event["involvedObject"]["name"] == "p"

    del node.preparer.errors["b"]
    eventually(lambda: node.cluster.phase("p") == "Running")


def test_a_failing_unprepare_keeps_the_pod(node: Node) -> None:
    node.cluster.claim("c")
    node.cluster.pod("p", "c")
    eventually(lambda: node.cluster.phase("p") == "Running")
    node.preparer.errors["c"] = DeviceInUse("still in use")
    node.api.delete(PODS, "p", "default")
    eventually(lambda: len(node.preparer.unprepare_calls) >= 2)
    assert node.api.get(PODS, "p", "default")["metadata"]["deletionTimestamp"]
    node.preparer.errors.clear()
    eventually(lambda: node.cluster.gone("p"))


def test_containers_that_are_not_restarted_end_and_free_their_claims(node: Node) -> None:
    node.cluster.claim("c")
    node.cluster.pod("p", "c", restartPolicy="Never")
    eventually(lambda: node.cluster.phase("p") == "Succeeded")
    assert len(node.preparer.unprepare_calls) == 1
    state = node.api.get(PODS, "p", "default")["status"]["containerStatuses"][0]["state"]
    assert state["terminated"]["exitCode"] == 0


def test_a_pod_that_no_claim_is_reserved_for_does_not_start(node: Node) -> None:
    node.cluster.claim("c")
    pod = node.cluster.pod("p", "c", reserve=False)
    event = eventually(lambda: node.events("FailedPrepareDynamicResources"))[0]
    assert f"pod p ({pod['metadata']['uid']}) is not allowed to use ResourceClaim c" in event["message"]
    assert node.preparer.prepare_calls == []
    node.cluster.reserve("c", pod)
    eventually(lambda: node.cluster.phase("p") == "Running")


def test_a_driver_that_is_not_there_is_named(node: Node) -> None:
    node.cluster.claim("c", driver="other.example.com")
    node.cluster.pod("p", "c")
    event = eventually(lambda: node.events("FailedPrepareDynamicResources"))[0]
    assert event["message"].endswith("DRA driver other.example.com is not registered")


def test_a_force_deleted_pod_is_cleaned_up_too(node: Node) -> None:
    node.cluster.claim("c")
    node.cluster.pod("p", "c")
    eventually(lambda: node.cluster.phase("p") == "Running")
    node.api.delete(PODS, "p", "default", grace_period_seconds=0)
    eventually(lambda: not node.preparer.prepared)


def test_a_missing_cdi_file_is_the_runtimes_error(node: Node) -> None:
    node.preparer.cdi_dir = None  # answers with CDI names that no file has
    node.cluster.claim("c")
    node.cluster.pod("p", "c")
    event = eventually(lambda: node.events("Failed"))[0]
    assert "unresolvable CDI devices k8s.gpu.nvidia.com/claim=" in event["message"]
    waiting = node.api.get(PODS, "p", "default")["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting["reason"] == "CreateContainerError"


def test_a_restart_registers_again_keeps_pods_and_prepares_again_for_the_next_pod(node: Node) -> None:
    node.cluster.claim("c")
    node.cluster.pod("first", "c")
    eventually(lambda: node.cluster.phase("first") == "Running")
    node.api.create(RESOURCE_SLICES, slice_of("ours", NODE))

    node.kubelet.restart()

    assert node.kubelet.wait_for_plugin(DRIVER)
    eventually(lambda: node.plugin.connection.state.registrations == 2)
    eventually(lambda: slice_names(node) == set())
    node.cluster.pod("second", "c")
    eventually(lambda: node.cluster.phase("second") == "Running")
    assert len(node.preparer.prepare_calls) == 2
    for name in ("first", "second"):
        delete_and_wait(node, name)
    assert len(node.preparer.unprepare_calls) == 1


def test_pods_deleted_while_the_kubelet_is_down_are_unprepared_afterwards(node: Node) -> None:
    node.cluster.claim("c")
    node.cluster.pod("p", "c")
    eventually(lambda: node.cluster.phase("p") == "Running")
    node.kubelet.stop()
    node.api.delete(PODS, "p", "default", grace_period_seconds=0)
    node.kubelet.start()
    eventually(lambda: len(node.preparer.unprepare_calls) == 1)


def test_slices_are_wiped_some_time_after_the_last_plugin_went(node: Node) -> None:
    node.api.create(RESOURCE_SLICES, slice_of("ours", NODE))
    node.api.create(RESOURCE_SLICES, slice_of("elsewhere", "node-1"))
    node.api.create(RESOURCE_SLICES, slice_of("foreign", NODE, "other.example.com"))
    node.plugin.stop(grace=0)
    eventually(lambda: slice_names(node) == {"elsewhere", "foreign"})
    assert node.kubelet.wiper.wipes == ["", DRIVER]


def test_a_plugin_that_comes_back_in_time_keeps_its_slices() -> None:
    with short_folder() as root:
        node = Node(root, dataclasses.replace(FAST, wipe_delay=1.5))
        node.start()
        node.api.create(RESOURCE_SLICES, slice_of("ours", NODE))
        node.plugin.stop(grace=0)
        eventually(lambda: not node.kubelet.plugins.plugins())
        again = InProcessPlugin(root, node.preparer, pod_uid="uid-2")
        again.start()
        assert node.kubelet.wait_for_plugin(DRIVER)
        assert slice_names(node) == {"ours"}
        assert node.kubelet.wiper.wipes == [""]
        node.kubelet.stop()
        again.stop(grace=0)


def test_the_wipe_is_tried_again_after_errors() -> None:
    with short_folder() as root:
        node = Node(root)
        node.api.create(RESOURCE_SLICES, slice_of("ours", NODE))
        real, failures = node.api.delete_collection, [Unavailable("down"), Unavailable("down")]

        def flaky(*args: Any, **kwargs: Any) -> None:
            if failures:
                raise failures.pop()
            real(*args, **kwargs)

        node.api.delete_collection = flaky  # type: ignore[method-assign]
        node.start()
        eventually(lambda: slice_names(node) == set())
        node.stop()


def pod_with(claims: list[Obj], container: Obj, **status: Any) -> Obj:
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {"resourceClaims": claims, "containers": [container]},
        "status": status,
    }


def test_claims_from_templates_and_for_extended_resources_are_found_in_the_status() -> None:
    claims = [{"name": "a", "resourceClaimTemplateName": "t"}, {"name": "b", "resourceClaimName": "shared"}]
    container = {
        "name": "main",
        "resources": {
            "claims": [{"name": "b", "request": "gpu"}, {"name": "a"}],
            "limits": {"nvidia.com/gpu": "1"},
        },
    }
    mappings = [
        {"containerName": "main", "resourceName": "nvidia.com/gpu", "requestName": "container-0-request-0"},
        {"containerName": "other", "resourceName": "nvidia.com/gpu", "requestName": "container-1-request-0"},
    ]
    pod = pod_with(
        claims,
        container,
        resourceClaimStatuses=[{"name": "a", "resourceClaimName": "p-a-x7z"}],
        extendedResourceClaimStatus={"resourceClaimName": "p-extended-resources-1", "requestMappings": mappings},
    )
    assert [(claim.entry, claim.claim_name, claim.owned_by_pod) for claim in pod_claims(pod)] == [
        ("a", "p-a-x7z", True),
        ("b", "shared", False),
        ("", "p-extended-resources-1", False),
    ]
    assert list(container_requests(pod, container)) == [
        ("p-a-x7z", ""),
        ("shared", "gpu"),
        ("p-extended-resources-1", "container-0-request-0"),
    ]


def test_a_claim_that_was_not_made_yet_is_waited_for_and_one_that_is_not_needed_is_skipped() -> None:
    claims = [{"name": "a", "resourceClaimTemplateName": "t"}]
    with pytest.raises(PodClaimError, match="not created yet: a"):
        pod_claims(pod_with(claims, {"name": "main"}))
    assert pod_claims(pod_with(claims, {"name": "main"}, resourceClaimStatuses=[{"name": "a"}])) == ()


def test_a_claim_of_another_pod_is_refused(node: Node) -> None:
    claim = node.cluster.claim("made")
    pod = node.api.create(
        PODS,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {
                "nodeName": NODE,
                "containers": [{"name": "main", "image": "x", "resources": {"claims": [{"name": "a"}]}}],
                "resourceClaims": [{"name": "a", "resourceClaimTemplateName": "t"}],
            },
        },
    )
    status = {"resourceClaimStatuses": [{"name": "a", "resourceClaimName": "made"}]}
    node.api.patch(PODS, "p", {"status": status}, "default", subresource="status")
    node.cluster.reserve("made", pod)
    event = eventually(
        lambda: [event for event in node.events("FailedPrepareDynamicResources") if "owner" in event["message"]]
    )[0]
    assert "ResourceClaim made was not created for pod default/p (pod is not owner)" in event["message"]
    assert node.api.get(RESOURCE_CLAIMS, "made", "default")["metadata"]["uid"] == claim["metadata"]["uid"]
