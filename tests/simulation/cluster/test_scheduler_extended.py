"""Extended resources: which class stands for a name, and what claim a pod's limits become."""

from __future__ import annotations

import pytest

from dra_driver.kube.interface import Obj
from dra_driver.simulation.scheduler.extended import (
    extended_requests,
    is_special_claim_of,
    special_claim,
    special_claim_status,
)
from tests.allocator.builders import device_class

GPU = "nvidia.com/gpu"


def named(name: str, created: str, resource: str = GPU) -> Obj:
    entry = device_class(name, extendedResourceName=resource)
    entry["metadata"]["creationTimestamp"] = created
    return entry


def pod(*containers: Obj, init: tuple[Obj, ...] = ()) -> Obj:
    return {
        "metadata": {"name": "p", "namespace": "demo", "uid": "pod-uid"},
        "spec": {"containers": list(containers), "initContainers": list(init)},
    }


CLASSES = [named("gpu", "2026-01-01T00:00:00Z"), named("mig", "2026-01-01T00:00:00Z", "nvidia.com/mig-1g.5gb")]


def test_init_containers_come_first_and_resources_are_numbered_per_container() -> None:
    main: Obj = {"name": "main", "resources": {"limits": {GPU: 2, "nvidia.com/mig-1g.5gb": "1", "memory": "1Gi"}}}
    requests = extended_requests(pod(main, init=({"name": "setup", "resources": {"limits": {GPU: 1}}},)), CLASSES)
    claim = special_claim(pod(main), requests)
    assert [
        (entry["name"], entry["exactly"]["deviceClassName"], entry["exactly"]["count"])
        for entry in claim["spec"]["devices"]["requests"]
    ] == [
        ("container-0-request-0", "gpu", 1),
        ("container-1-request-0", "gpu", 2),
        ("container-1-request-1", "mig", 1),
    ]
    assert special_claim_status("c", requests)["requestMappings"][2] == {
        "containerName": "main",
        "resourceName": "nvidia.com/mig-1g.5gb",
        "requestName": "container-1-request-1",
    }


def test_the_special_claim_belongs_to_its_pod() -> None:
    owner = pod({"name": "main", "resources": {"limits": {GPU: 1}}})
    claim = special_claim(owner, extended_requests(owner, CLASSES))
    assert claim["metadata"]["generateName"] == "p-extended-resources-"
    assert is_special_claim_of(claim, owner)
    assert not is_special_claim_of(claim, {"metadata": {"uid": "another"}})


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([named("old", "2026-01-01T00:00:00Z"), named("new", "2026-02-01T00:00:00Z")], "new"),
        ([named("new", "2026-02-01T00:00:00Z"), named("old", "2026-01-01T00:00:00Z")], "new"),
        ([named("b", "2026-01-01T00:00:00Z"), named("a", "2026-01-01T00:00:00Z")], "a"),
        ([], None),
    ],
)
def test_of_several_classes_the_newest_counts(classes: list[Obj], expected: str | None) -> None:
    (request,) = extended_requests(pod({"name": "main", "resources": {"limits": {GPU: 1}}}), classes)
    assert request.class_name == expected


def test_a_class_by_its_implicit_name() -> None:
    main = {"name": "main", "resources": {"limits": {"deviceclass.resource.kubernetes.io/gpu": 1}}}
    (request,) = extended_requests(pod(main), CLASSES)
    assert request.class_name == "gpu"
    other = {"name": "main", "resources": {"limits": {"deviceclass.resource.kubernetes.io/nope": 1}}}
    (request,) = extended_requests(pod(other), CLASSES)
    assert request.class_name is None


@pytest.mark.parametrize("limits", [{}, {GPU: 0}, {"cpu": 1, "memory": "1Gi", "pods.kubernetes.io/x": 1}])
def test_what_is_not_an_extended_resource(limits: Obj) -> None:
    assert extended_requests(pod({"name": "main", "resources": {"limits": limits}}), CLASSES) == ()


@pytest.mark.parametrize("amount", ["500m", "-1", "1.5"])
def test_only_whole_devices(amount: str) -> None:
    with pytest.raises(ValueError, match="must be a whole number"):
        extended_requests(pod({"name": "main", "resources": {"limits": {GPU: amount}}}), CLASSES)
