"""LIST: selectors, order, pages."""

from __future__ import annotations

import pytest

from dra_driver.kube.interface import (
    CONFIG_MAPS,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    BadRequest,
    ListPage,
    Obj,
    Resource,
    Unavailable,
)
from tests.contract.conftest import Cluster
from tests.contract.objects import config_map, pod, resource_slice


def names(page: ListPage) -> list[str]:
    return [item["metadata"]["name"] for item in page.items]


def labelled(name: str, namespace: str, **labels: str) -> Obj:
    obj = config_map(name, namespace)
    obj["metadata"]["labels"] = labels
    return obj


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("team=ml", ["a", "b"]),
        ("team==ml,tier=gold", ["a"]),
        ("team!=ml", ["c", "d"]),
        ("team in (ml, web)", ["a", "b", "c"]),
        ("team notin (ml)", ["c", "d"]),
        ("tier", ["a", "c"]),
        ("!tier", ["b", "d"]),
        ("!tier,team", ["b"]),
        ("rank>1", ["b", "c"]),
        ("rank<2", ["a"]),
        ("tier=", []),
        ("", ["a", "b", "c", "d"]),
    ],
)
def test_label_selectors(cluster: Cluster, selector: str, expected: list[str]) -> None:
    for obj in (
        labelled("c", cluster.namespace, team="web", tier="gold", rank="10"),
        labelled("a", cluster.namespace, team="ml", tier="gold", rank="1"),
        labelled("b", cluster.namespace, team="ml", rank="2"),
        labelled("d", cluster.namespace),
    ):
        cluster.api.create(CONFIG_MAPS, obj)
    found = names(cluster.api.list(CONFIG_MAPS, cluster.namespace, label_selector=selector))
    assert [name for name in found if name != "kube-root-ca.crt"] == expected


@pytest.mark.parametrize("selector", ["a===b", "a in b", "a=b c", "=a", "a in (b", "a>x", "a=-b-"])
def test_malformed_label_selectors(cluster: Cluster, selector: str) -> None:
    with pytest.raises(BadRequest):
        cluster.api.list(CONFIG_MAPS, cluster.namespace, label_selector=selector)


def test_field_selectors_of_slices(cluster: Cluster) -> None:
    node = cluster.name
    cluster.api.create(RESOURCE_SLICES, resource_slice(f"{node}-a", node=node))
    cluster.api.create(RESOURCE_SLICES, resource_slice(f"{node}-b", node=node, driver="other.example.com"))
    for selector, expected in (
        (f"spec.nodeName={node}", ["a", "b"]),
        (f"spec.nodeName={node},spec.driver=gpu.nvidia.com", ["a"]),
        (f"spec.nodeName={node},spec.driver!=gpu.nvidia.com", ["b"]),
        (f"spec.pool.name={node}", ["a", "b"]),
        (f"metadata.name={node}-b", ["b"]),
    ):
        if cluster.is_older and "pool" in selector:
            with pytest.raises(BadRequest, match="field label not supported"):
                cluster.api.list(RESOURCE_SLICES, field_selector=selector)
            continue
        found = names(cluster.api.list(RESOURCE_SLICES, field_selector=selector))
        assert found == [f"{node}-{end}" for end in expected], selector


def test_field_selectors_of_pods(cluster: Cluster) -> None:
    bound = pod("bound", cluster.namespace)
    bound["spec"]["nodeName"] = cluster.name
    cluster.api.create(PODS, bound)
    cluster.api.create(PODS, pod("free", cluster.namespace))
    assert names(cluster.api.list(PODS, field_selector=f"spec.nodeName={cluster.name}")) == ["bound"]
    assert names(cluster.api.list(PODS, cluster.namespace, field_selector="spec.nodeName=")) == ["free"]
    assert names(cluster.api.list(PODS, cluster.namespace, field_selector="status.phase!=Pending")) == []
    one = f"metadata.name=free,metadata.namespace={cluster.namespace}"
    assert names(cluster.api.list(PODS, field_selector=one)) == ["free"]


@pytest.mark.parametrize(
    ("resource", "selector"),
    [
        (RESOURCE_SLICES, "spec.pool.generation=1"),
        (RESOURCE_SLICES, "metadata.namespace=a"),
        (RESOURCE_CLAIMS, "spec.nodeName=a"),
        (CONFIG_MAPS, "data.a=1"),
        (PODS, "spec.nodeName"),
    ],
)
def test_field_selectors_that_are_not_served(cluster: Cluster, resource: Resource, selector: str) -> None:
    with pytest.raises(BadRequest):
        cluster.api.list(resource, field_selector=selector)


def test_items_say_what_they_are(cluster: Cluster) -> None:
    cluster.api.create(RESOURCE_SLICES, resource_slice(cluster.name, node=cluster.name))
    (item,) = cluster.api.list(RESOURCE_SLICES, field_selector=f"spec.nodeName={cluster.name}").items
    assert (item["apiVersion"], item["kind"]) == ("resource.k8s.io/v1", "ResourceSlice")


def test_pages_are_one_consistent_list(cluster: Cluster) -> None:
    api, namespace = cluster.api, cluster.namespace
    for index in range(5):
        api.create(CONFIG_MAPS, labelled(f"p{index}", namespace, page="yes"))
    page = api.list(CONFIG_MAPS, namespace, label_selector="page=yes", limit=2)
    assert names(page) == ["p0", "p1"]
    assert page.continue_token
    api.delete(CONFIG_MAPS, "p3", namespace)
    api.create(CONFIG_MAPS, labelled("p2-and-a-half", namespace, page="yes"))
    second = api.list(CONFIG_MAPS, namespace, label_selector="page=yes", limit=2, continue_token=page.continue_token)
    third = api.list(CONFIG_MAPS, namespace, label_selector="page=yes", limit=2, continue_token=second.continue_token)
    assert names(second) + names(third) == ["p2", "p3", "p4"]
    assert not third.continue_token
    assert page.resource_version == second.resource_version == third.resource_version


def test_a_continue_token_that_never_was_one(cluster: Cluster) -> None:
    with pytest.raises(BadRequest):
        cluster.api.list(CONFIG_MAPS, cluster.namespace, limit=1, continue_token="abc")


def test_versions_of_lists(cluster: Cluster) -> None:
    before = cluster.api.list(CONFIG_MAPS, cluster.namespace)
    created = cluster.api.create(CONFIG_MAPS, config_map("a", cluster.namespace))
    after = cluster.api.list(CONFIG_MAPS, cluster.namespace)
    assert int(before.resource_version) < int(created["metadata"]["resourceVersion"]) <= int(after.resource_version)
    cached = cluster.api.list(CONFIG_MAPS, cluster.namespace, resource_version="0")
    assert cached.resource_version.isdigit()


def test_a_version_from_the_future(cluster: Cluster) -> None:
    future = str(int(cluster.api.list(CONFIG_MAPS, cluster.namespace).resource_version) + 100_000)
    with pytest.raises(Unavailable, match="Too large resource version") as caught:
        cluster.api.list(CONFIG_MAPS, cluster.namespace, resource_version=future)
    assert caught.value.code == 504


def test_all_namespaces(cluster: Cluster) -> None:
    cluster.api.create(CONFIG_MAPS, labelled("here", cluster.namespace, only=cluster.name))
    cluster.api.create(CONFIG_MAPS, labelled(f"there-{cluster.name}", "default", only=cluster.name))
    found = cluster.api.list(CONFIG_MAPS, label_selector=f"only={cluster.name}")
    assert [o["metadata"]["namespace"] for o in found.items] == ["default", cluster.namespace]
