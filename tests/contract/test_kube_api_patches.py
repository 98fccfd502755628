"""PATCH: merge, strategic merge, JSON patch, server-side apply."""

from __future__ import annotations

from typing import Any

import pytest

from dra_driver.kube.interface import (
    CONFIG_MAPS,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    BadRequest,
    Conflict,
    Invalid,
    NotFound,
    Obj,
    PatchType,
)
from tests.contract.conftest import Cluster
from tests.contract.objects import allocation, claim, config_map, pod, resource_slice


def make(cluster: Cluster, **data: str) -> Obj:
    return cluster.api.create(CONFIG_MAPS, config_map("a", cluster.namespace, **data))


def patch(cluster: Cluster, body: Any, kind: PatchType = PatchType.MERGE) -> Obj:
    return cluster.api.patch(CONFIG_MAPS, "a", body, cluster.namespace, patch_type=kind)


def test_merge_patch(cluster: Cluster) -> None:
    made = make(cluster, x="1", y="2")
    patched = patch(cluster, {"data": {"x": None, "z": "3"}, "metadata": {"labels": {"a": "b"}}})
    assert patched["data"] == {"y": "2", "z": "3"}
    assert patched["metadata"]["labels"] == {"a": "b"}
    assert patched["metadata"]["uid"] == made["metadata"]["uid"]


def test_a_merge_patch_without_effect_writes_nothing(cluster: Cluster) -> None:
    made = make(cluster, x="1")
    assert patch(cluster, {"data": {"x": "1", "gone": None}}) == made


def test_a_merge_patch_locks_when_it_names_a_version(cluster: Cluster) -> None:
    version = make(cluster, x="1")["metadata"]["resourceVersion"]
    patch(cluster, {"data": {"x": "2"}, "metadata": {"resourceVersion": version}})
    with pytest.raises(Conflict, match="the object has been modified"):
        patch(cluster, {"data": {"x": "3"}, "metadata": {"resourceVersion": version}})


def test_identity_cannot_be_patched(cluster: Cluster) -> None:
    make(cluster)
    with pytest.raises(BadRequest, match="does not match the name on the URL"):
        patch(cluster, {"metadata": {"name": "b"}})
    with pytest.raises(Invalid) as caught:
        patch(cluster, {"metadata": {"uid": "b"}})
    # Older servers say it twice.
    causes = {(cause["field"], cause["message"]) for cause in caught.value.details["causes"]}
    assert causes == {("metadata.uid", 'Invalid value: "b": field is immutable')}
    with pytest.raises(NotFound):
        cluster.api.patch(CONFIG_MAPS, "absent", {"data": {}}, cluster.namespace)


def test_a_patch_is_validated(cluster: Cluster) -> None:
    cluster.api.create(RESOURCE_SLICES, resource_slice(cluster.name, node=cluster.name))
    with pytest.raises(Invalid) as caught:
        cluster.api.patch(RESOURCE_SLICES, cluster.name, {"spec": {"nodeName": "other"}})
    assert [c["field"] for c in caught.value.details["causes"]] == ["spec.nodeName"]


def test_status_patch_touches_status_only(cluster: Cluster) -> None:
    cluster.api.create(RESOURCE_CLAIMS, claim("gpu", cluster.namespace))
    body = {"status": {"allocation": allocation("n1")}, "metadata": {"labels": {"a": "b"}}}
    patched = cluster.api.patch(RESOURCE_CLAIMS, "gpu", body, cluster.namespace, subresource="status")
    assert patched["status"]["allocation"]["devices"]["results"][0]["pool"] == "n1"
    assert "labels" not in patched["metadata"]
    again = cluster.api.patch(RESOURCE_CLAIMS, "gpu", {"status": {"allocation": None}}, cluster.namespace)
    assert "allocation" in again["status"], "a main patch leaves the status alone"
    freed = cluster.api.patch(
        RESOURCE_CLAIMS, "gpu", {"status": {"allocation": None}}, cluster.namespace, subresource="status"
    )
    assert "allocation" not in freed["status"]


def test_json_patch(cluster: Cluster) -> None:
    make(cluster, x="1", y="2")
    operations = [
        {"op": "test", "path": "/data/x", "value": "1"},
        {"op": "replace", "path": "/data/x", "value": "5"},
        {"op": "add", "path": "/metadata/labels", "value": {"a/b": "c"}},
        {"op": "move", "from": "/data/y", "path": "/data/z"},
        {"op": "copy", "from": "/data/z", "path": "/data/w"},
        {"op": "remove", "path": "/metadata/labels/a~1b"},
        {"op": "add", "path": "/metadata/finalizers", "value": ["gpu-dra.dev/two"]},
        {"op": "add", "path": "/metadata/finalizers/0", "value": "gpu-dra.dev/one"},
        {"op": "add", "path": "/metadata/finalizers/-", "value": "gpu-dra.dev/three"},
    ]
    patched = patch(cluster, operations, PatchType.JSON)
    assert patched["data"] == {"x": "5", "z": "2", "w": "2"}
    assert patched["metadata"]["finalizers"] == ["gpu-dra.dev/one", "gpu-dra.dev/two", "gpu-dra.dev/three"]


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/data/x", "value": "other"},
        {"op": "remove", "path": "/data/absent"},
        {"op": "replace", "path": "/absent/deep", "value": "1"},
        {"op": "add", "path": "/absent/deep", "value": "1"},
        {"op": "zip", "path": "/data/x"},
    ],
)
def test_a_json_patch_that_does_not_fit_changes_nothing(cluster: Cluster, operation: Obj) -> None:
    made = make(cluster, x="1")
    with pytest.raises(Invalid) as caught:
        patch(cluster, [{"op": "add", "path": "/data/y", "value": "2"}, operation], PatchType.JSON)
    assert caught.value.code == 422
    assert cluster.api.get(CONFIG_MAPS, "a", cluster.namespace) == made


def test_bodies_that_are_no_patches(cluster: Cluster) -> None:
    make(cluster)
    with pytest.raises(BadRequest):
        patch(cluster, {}, PatchType.JSON)
    with pytest.raises(BadRequest):
        patch(cluster, [], PatchType.MERGE)


def test_strategic_merge_patch_merges_lists_by_key(cluster: Cluster) -> None:
    cluster.api.create(PODS, pod("a", cluster.namespace))
    condition = {"type": "Checked", "status": "True"}
    body = {"status": {"conditions": [condition]}}
    for _ in range(2):
        patched = cluster.api.patch(
            PODS, "a", body, cluster.namespace, patch_type=PatchType.STRATEGIC, subresource="status"
        )
    (found,) = [c for c in patched["status"]["conditions"] if c["type"] == "Checked"]
    assert found["status"] == "True"
    body = {"status": {"conditions": [{"type": "Checked", "$patch": "delete"}]}}
    patched = cluster.api.patch(
        PODS, "a", body, cluster.namespace, patch_type=PatchType.STRATEGIC, subresource="status"
    )
    assert not [c for c in patched["status"].get("conditions", []) if c["type"] == "Checked"]


def apply(cluster: Cluster, body: Obj, manager: str, *, force: bool = False) -> Obj:
    return cluster.api.patch(
        CONFIG_MAPS,
        "applied",
        body,
        cluster.namespace,
        patch_type=PatchType.APPLY,
        field_manager=manager,
        force=force,
    )


def owner(obj: Obj, manager: str) -> Obj:
    (entry,) = [e for e in obj["metadata"]["managedFields"] if e["manager"] == manager]
    found: Obj = entry["fieldsV1"]
    return found


def test_apply_creates_updates_and_removes(cluster: Cluster) -> None:
    made = apply(cluster, {"data": {"x": "1", "y": "2"}}, "one")
    assert made["metadata"]["name"] == "applied"
    assert owner(made, "one") == {"f:data": {"f:x": {}, "f:y": {}}}
    assert apply(cluster, {"data": {"x": "1", "y": "2"}}, "one") == made, "nothing changed, nothing written"
    changed = apply(cluster, {"data": {"x": "3"}}, "one")
    assert changed["data"] == {"x": "3"}
    assert owner(changed, "one") == {"f:data": {"f:x": {}}}


def test_apply_conflicts_unless_forced(cluster: Cluster) -> None:
    apply(cluster, {"data": {"x": "1"}}, "one")
    with pytest.raises(Conflict, match=r'Apply failed with 1 conflict: conflict with "one".*: \.data\.x') as caught:
        apply(cluster, {"data": {"x": "2"}}, "two")
    (cause,) = caught.value.details["causes"]
    assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".data.x")
    forced = apply(cluster, {"data": {"x": "2"}}, "two", force=True)
    assert forced["data"] == {"x": "2"}
    assert owner(forced, "two") == {"f:data": {"f:x": {}}}
    assert [e["manager"] for e in forced["metadata"]["managedFields"]] == ["two"]


def test_what_two_managers_apply_stays_until_both_let_go(cluster: Cluster) -> None:
    apply(cluster, {"data": {"x": "1", "mine": "1"}}, "one")
    apply(cluster, {"data": {"x": "1", "other": "2"}}, "two")
    assert apply(cluster, {"data": {"mine": "1"}}, "one")["data"] == {"x": "1", "mine": "1", "other": "2"}
    assert apply(cluster, {"data": {"other": "2"}}, "two")["data"] == {"mine": "1", "other": "2"}


def test_apply_merges_keyed_lists_by_item(cluster: Cluster) -> None:
    cluster.api.create(NODES, {"metadata": {"name": cluster.name}})

    def condition(kind: str, status: str) -> Obj:
        return {"status": {"conditions": [{"type": kind, "status": status, "reason": "R", "message": ""}]}}

    def applied(kind: str, status: str, manager: str) -> Obj:
        return cluster.api.patch(
            NODES,
            cluster.name,
            condition(kind, status),
            patch_type=PatchType.APPLY,
            field_manager=manager,
            subresource="status",
        )

    applied("A", "True", "one")
    both = applied("B", "True", "two")
    assert [(c["type"], c["status"]) for c in both["status"]["conditions"]] == [("A", "True"), ("B", "True")]
    changed = applied("A", "False", "one")
    assert [(c["type"], c["status"]) for c in changed["status"]["conditions"]] == [("A", "False"), ("B", "True")]
    moved = applied("C", "True", "one")
    assert [c["type"] for c in moved["status"]["conditions"]] == ["B", "C"]


def test_an_update_takes_fields_from_an_applier(cluster: Cluster) -> None:
    made = apply(cluster, {"data": {"x": "1", "y": "1"}}, "one")
    made["data"]["x"] = "2"
    updated = cluster.api.update(CONFIG_MAPS, made)
    assert owner(updated, "one") == {"f:data": {"f:y": {}}}
    with pytest.raises(Conflict, match=r"conflict with .*: \.data\.x"):
        apply(cluster, {"data": {"x": "3", "y": "1"}}, "one")


def test_apply_over_an_object_that_was_never_applied(cluster: Cluster) -> None:
    cluster.api.create(CONFIG_MAPS, config_map("applied", cluster.namespace, x="1", y="1"))
    with pytest.raises(Conflict, match=r"conflict with .*: \.data\.x"):
        apply(cluster, {"data": {"x": "2"}}, "one")
    assert apply(cluster, {"data": {"x": "2"}}, "one", force=True)["data"] == {"x": "2", "y": "1"}


def test_apply_needs_a_manager_and_may_be_dry(cluster: Cluster) -> None:
    with pytest.raises((Invalid, BadRequest), match="fieldManager"):
        apply(cluster, {"data": {}}, "")
    cluster.api.patch(
        CONFIG_MAPS,
        "dry",
        {"data": {"x": "1"}},
        cluster.namespace,
        patch_type=PatchType.APPLY,
        field_manager="one",
        dry_run=True,
    )
    with pytest.raises(NotFound):
        cluster.api.get(CONFIG_MAPS, "dry", cluster.namespace)
