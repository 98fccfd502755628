"""Custom resources: our own CRDs as they are shipped, and what their schemas do to objects."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from dra_driver.kube.interface import (
    CUSTOM_RESOURCE_DEFINITIONS,
    NODE_INVENTORIES,
    AlreadyExists,
    Expired,
    Invalid,
    KubeApi,
    NotFound,
    Obj,
    Resource,
)
from tests.contract.conftest import Cluster

CRDS = Path(__file__).parents[2] / "deploy" / "crds"


def install(api: KubeApi, definition: Obj, served: Resource) -> None:
    """Create a CRD unless it is there, and wait until its resource is served."""
    with contextlib.suppress(AlreadyExists):
        api.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
    deadline = time.monotonic() + 20
    while True:
        try:
            api.list(served)
        except NotFound:
            assert time.monotonic() < deadline, f"{served.plural} is not served after 20 s"
            time.sleep(0.05)
        else:
            return


def inventory(name: str) -> Obj:
    return {"metadata": {"name": name}, "spec": {}}


@pytest.fixture
def inventories(cluster: Cluster) -> Cluster:
    definition = yaml.safe_load((CRDS / "nodeinventories.yaml").read_text())
    install(cluster.api, definition, NODE_INVENTORIES)
    return cluster


def test_inventory_is_created_and_counted(inventories: Cluster) -> None:
    api, name = inventories.api, inventories.name
    created = api.create(NODE_INVENTORIES, {**inventory(name), "status": {"answer": "x"}})
    assert created["metadata"]["generation"] == 1
    assert "answer" not in created.get("status", {}), "status is set through its subresource only"
    challenged = api.patch(NODE_INVENTORIES, name, {"spec": {"challenge": "c-1"}})
    assert challenged["metadata"]["generation"] == 2
    answered = api.patch(
        NODE_INVENTORIES, name, {"status": {"answer": "c-1"}, "spec": {"challenge": "no"}}, subresource="status"
    )
    assert answered["status"]["answer"] == "c-1"
    assert answered["spec"]["challenge"] == "c-1"
    assert answered["metadata"]["generation"] == 2


def test_unknown_fields_are_pruned(inventories: Cluster) -> None:
    obj = {**inventory(inventories.name), "bogus": 1}
    obj["spec"] = {"challenge": "c", "bogus": {"deep": 1}}
    created = inventories.api.create(NODE_INVENTORIES, obj)
    assert created["spec"] == {"challenge": "c"}
    assert "bogus" not in created


def causes(error: Invalid) -> list[tuple[str, str]]:
    return [(cause["field"], cause["reason"]) for cause in error.details["causes"]]


def test_the_schema_is_enforced(inventories: Cluster) -> None:
    api, name = inventories.api, inventories.name
    with pytest.raises(Invalid) as caught:
        api.create(NODE_INVENTORIES, {"metadata": {"name": name}, "spec": {"challenge": "x" * 65}})
    assert causes(caught.value) == [("spec.challenge", "FieldValueTooLong")]
    assert caught.value.message.startswith(f'NodeInventory.gpu-dra.dev "{name}" is invalid: spec.challenge: Too long')
    with pytest.raises(Invalid) as caught:
        api.create(NODE_INVENTORIES, {"metadata": {"name": name}, "spec": {"challenge": 5}})
    assert causes(caught.value) == [("spec.challenge", "FieldValueTypeInvalid")]
    api.create(NODE_INVENTORIES, inventory(name))
    odd = {"status": {"conditions": [{"type": "A", "status": "Odd"}]}}
    with pytest.raises(Invalid) as caught:
        api.patch(NODE_INVENTORIES, name, odd, subresource="status")
    assert set(causes(caught.value)) == {
        ("status.conditions[0].reason", "FieldValueRequired"),
        ("status.conditions[0].status", "FieldValueNotSupported"),
    }


def test_updates_of_custom_resources_need_a_version(inventories: Cluster) -> None:
    created = inventories.api.create(NODE_INVENTORIES, inventory(inventories.name))
    assert inventories.api.update(NODE_INVENTORIES, created) == created
    del created["metadata"]["resourceVersion"]
    with pytest.raises(Invalid) as caught:
        inventories.api.update(NODE_INVENTORIES, created)
    assert causes(caught.value) == [("metadata.resourceVersion", "FieldValueInvalid")]


def widget_definition(group: str) -> Obj:
    spec: dict[str, Any] = {
        "type": "object",
        "required": ["size"],
        "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 9},
            "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
            "tags": {"type": "array", "maxItems": 2, "items": {"type": "string", "pattern": "^[a-z]+$"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}},
            "port": {"x-kubernetes-int-or-string": True},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "ratio": {"type": "number"},
            "maybe": {"type": "string", "nullable": True},
        },
    }
    return {
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "singular": "widget", "listKind": "WidgetList"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
                }
            ],
        },
    }


@pytest.fixture
def widgets(cluster: Cluster) -> tuple[Cluster, Resource]:
    group = f"{cluster.name}.example.com"
    resource = Resource(group, "v1", "widgets", "Widget", namespaced=True)
    with pytest.raises(NotFound):
        cluster.api.list(resource)
    install(cluster.api, widget_definition(group), resource)
    return cluster, resource


@pytest.fixture
def shared_widgets(cluster: Cluster) -> tuple[Cluster, Resource]:
    """With the definition of the tests before, which leave it as it is: a real server serves one after seconds."""
    resource = Resource("shared.example.com", "v1", "widgets", "Widget", namespaced=True)
    install(cluster.api, widget_definition(resource.group), resource)
    return cluster, resource


def test_a_definition_adds_a_resource(widgets: tuple[Cluster, Resource]) -> None:
    cluster, resource = widgets
    definition = cluster.api.get(CUSTOM_RESOURCE_DEFINITIONS, f"widgets.{resource.group}")
    assert {c["type"]: c["status"] for c in definition["status"]["conditions"]} == {
        "NamesAccepted": "True",
        "Established": "True",
    }
    spec = {"size": 3, "labels": {"a": "b"}, "port": "http", "free": {"x": {"y": 1}}, "maybe": None, "ratio": 1}
    widget = {"metadata": {"name": "w", "namespace": cluster.namespace}, "spec": {**spec, "unheardOf": 1}}
    created = cluster.api.create(resource, widget)
    assert created["spec"] == {**spec, "color": "red"}
    assert created["metadata"]["generation"] == 1
    changed = cluster.api.patch(resource, "w", {"spec": {"size": 4}, "status": {"x": 1}}, cluster.namespace)
    assert changed["metadata"]["generation"] == 2
    assert "status" not in changed, "this schema knows no status"
    with pytest.raises(NotFound):
        cluster.api.patch(resource, "w", {"status": {}}, cluster.namespace, subresource="status")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, [("spec.size", "FieldValueRequired")]),
        ({"size": 0}, [("spec.size", "FieldValueInvalid")]),
        ({"size": 10}, [("spec.size", "FieldValueInvalid")]),
        ({"size": "3"}, [("spec.size", "FieldValueTypeInvalid")]),
        ({"size": 3, "color": "green"}, [("spec.color", "FieldValueNotSupported")]),
        ({"size": 3, "tags": ["a", "b", "c"]}, [("spec.tags", "FieldValueTooMany")]),
        ({"size": 3, "tags": ["A"]}, [("spec.tags[0]", "FieldValueInvalid")]),
        ({"size": 3, "labels": {"a": ""}}, [("spec.labels.a", "FieldValueInvalid")]),
        ({"size": 3, "port": True}, [("spec.port", "FieldValueTypeInvalid")]),
        ({"size": 3, "free": "x"}, [("spec.free", "FieldValueTypeInvalid")]),
    ],
)
def test_schema_refusals(
    shared_widgets: tuple[Cluster, Resource], spec: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    cluster, resource = shared_widgets
    widget = {"metadata": {"name": "w", "namespace": cluster.namespace}, "spec": spec}
    with pytest.raises(Invalid) as caught:
        cluster.api.create(resource, widget)
    assert causes(caught.value) == expected


def test_a_watch_from_before_the_resource_was_served_is_expired(widgets: tuple[Cluster, Resource]) -> None:
    cluster, resource = widgets
    if cluster.kind != "real":
        pytest.skip("here history reaches back to the start")
    with pytest.raises(Expired), cluster.api.watch(resource, resource_version="1", timeout_seconds=2) as events:
        list(events)


def test_removing_a_definition_removes_its_resource(widgets: tuple[Cluster, Resource]) -> None:
    cluster, resource = widgets
    widget = {"metadata": {"name": "w", "namespace": cluster.namespace}, "spec": {"size": 3}}
    cluster.api.create(resource, widget)
    cluster.api.delete(CUSTOM_RESOURCE_DEFINITIONS, f"widgets.{resource.group}")
    deadline = time.monotonic() + 20
    while is_there(cluster.api, resource, "w", cluster.namespace):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_there(api: KubeApi, resource: Resource, name: str, namespace: str) -> bool:
    try:
        api.get(resource, name, namespace)
    except NotFound:
        return False
    return True


def test_malformed_definitions(cluster: Cluster) -> None:
    definition = widget_definition(f"{cluster.name}.example.com")
    definition["metadata"]["name"] = "wrong.example.com"
    with pytest.raises(Invalid) as caught:
        cluster.api.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
    assert ("metadata.name", "FieldValueInvalid") in causes(caught.value)
    definition = widget_definition(f"{cluster.name}.example.com")
    del definition["spec"]["versions"][0]["schema"]
    with pytest.raises(Invalid) as caught:
        cluster.api.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
    assert ("spec.versions[0].schema.openAPIV3Schema", "FieldValueRequired") in causes(caught.value)
