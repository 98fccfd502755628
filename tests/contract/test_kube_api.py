"""Reading and writing objects: the same cases on every implementation of ``KubeApi``."""

from __future__ import annotations

import pytest

from dra_driver.kube.interface import (
    CONFIG_MAPS,
    DEVICE_CLASSES,
    LEASES,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    AlreadyExists,
    BadRequest,
    Conflict,
    Invalid,
    NotFound,
    Obj,
    Preconditions,
    Resource,
    Unavailable,
)
from tests.contract.conftest import Cluster
from tests.contract.objects import allocation, claim, config_map, lease, pod, resource_slice


def test_create_sets_what_the_server_sets(cluster: Cluster) -> None:
    created = cluster.api.create(RESOURCE_SLICES, resource_slice(cluster.name, node=cluster.name))
    metadata = created["metadata"]
    assert created["apiVersion"] == "resource.k8s.io/v1"
    assert created["kind"] == "ResourceSlice"
    assert metadata["uid"]
    assert metadata["resourceVersion"].isdigit()
    assert metadata["generation"] == 1
    assert metadata["creationTimestamp"].endswith("Z")
    assert cluster.api.get(RESOURCE_SLICES, cluster.name) == created


def test_create_normalises_the_object(cluster: Cluster) -> None:
    device = {
        "name": "gpu-0",
        "attributes": {},
        "capacity": {"memory": {"value": "1024Mi"}},
        "taints": [{"key": "a", "effect": "NoSchedule"}],
        "unheardOf": 1,
    }
    obj = resource_slice(cluster.name, node=cluster.name, devices=[device])
    created = cluster.api.create(RESOURCE_SLICES, obj)
    (echoed,) = created["spec"]["devices"]
    assert echoed["capacity"] == {"memory": {"value": "1Gi"}}
    assert "unheardOf" not in echoed
    assert "attributes" not in echoed
    assert echoed["taints"][0]["timeAdded"] == created["metadata"]["creationTimestamp"]


def test_an_empty_list_of_devices_is_left_out(cluster: Cluster) -> None:
    created = cluster.api.create(RESOURCE_SLICES, resource_slice(cluster.name, node=cluster.name, devices=[]))
    if cluster.is_older:  # it says null, which a reader must take for none as well
        assert created["spec"]["devices"] is None
    else:
        assert "devices" not in created["spec"]


def test_create_twice(cluster: Cluster) -> None:
    obj = config_map("twice", cluster.namespace)
    cluster.api.create(CONFIG_MAPS, obj)
    with pytest.raises(AlreadyExists, match=r'^configmaps "twice" already exists$') as caught:
        cluster.api.create(CONFIG_MAPS, obj)
    assert caught.value.code == 409
    assert caught.value.details == {"name": "twice", "kind": "configmaps"}


def test_generate_name(cluster: Cluster) -> None:
    obj: Obj = {"metadata": {"generateName": "made-", "namespace": cluster.namespace}}
    names = {cluster.api.create(CONFIG_MAPS, obj)["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(len(name) == len("made-") + 5 for name in names)


def test_a_name_is_required(cluster: Cluster) -> None:
    with pytest.raises(Invalid) as caught:
        cluster.api.create(CONFIG_MAPS, {"metadata": {"namespace": cluster.namespace}})
    (cause,) = caught.value.details["causes"]
    assert (cause["field"], cause["reason"]) == ("metadata.name", "FieldValueRequired")


def test_create_with_a_version_is_refused(cluster: Cluster) -> None:
    obj = config_map("versioned", cluster.namespace)
    obj["metadata"]["resourceVersion"] = "5"
    with pytest.raises(Unavailable, match="resourceVersion should not be set on objects to be created") as caught:
        cluster.api.create(CONFIG_MAPS, obj)
    assert caught.value.code == 500


def test_the_namespace_must_exist(cluster: Cluster) -> None:
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        cluster.api.create(CONFIG_MAPS, config_map("a", "nowhere"))
    with pytest.raises(BadRequest):
        cluster.api.create(CONFIG_MAPS, {"metadata": {"name": "a"}})


def test_unknown_object_and_unknown_resource(cluster: Cluster) -> None:
    with pytest.raises(NotFound, match=f'resourceslices.resource.k8s.io "{cluster.name}" not found') as caught:
        cluster.api.get(RESOURCE_SLICES, cluster.name)
    assert caught.value.details == {"name": cluster.name, "group": "resource.k8s.io", "kind": "resourceslices"}
    unheard = Resource("", "v1", "unheards", "Unheard", namespaced=False)
    with pytest.raises(NotFound, match="the server could not find the requested resource"):
        cluster.api.list(unheard)
    with pytest.raises(NotFound):
        cluster.api.list(Resource("resource.k8s.io", "v7", "resourceslices", "ResourceSlice", namespaced=False))


def test_values_of_a_wrong_type_are_a_bad_request(cluster: Cluster) -> None:
    for path, value in ((("driver",), 7), (("pool", "generation"), "x"), (("devices",), {})):
        obj = resource_slice(cluster.name, node=cluster.name)
        holder = obj["spec"]
        for part in path[:-1]:
            holder = holder[part]
        holder[path[-1]] = value
        with pytest.raises(BadRequest, match=r'^ResourceSlice in version "v1" cannot be handled as a ResourceSlice: '):
            cluster.api.create(RESOURCE_SLICES, obj)
    bad_quantity = resource_slice(
        cluster.name, node=cluster.name, devices=[{"name": "a", "capacity": {"memory": {"value": "lots"}}}]
    )
    with pytest.raises(BadRequest, match=r'^ResourceSlice in version "v1" cannot be handled as a ResourceSlice: '):
        cluster.api.create(RESOURCE_SLICES, bad_quantity)


def test_update_and_generation(cluster: Cluster) -> None:
    first = cluster.api.create(RESOURCE_SLICES, resource_slice(cluster.name, node=cluster.name))
    first["spec"]["pool"]["generation"] = 2
    second = cluster.api.update(RESOURCE_SLICES, first)
    assert second["metadata"]["generation"] == 2
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    second["metadata"]["labels"] = {"a": "b"}
    third = cluster.api.update(RESOURCE_SLICES, second)
    assert third["metadata"]["generation"] == 2


def test_an_update_without_change_writes_nothing(cluster: Cluster) -> None:
    first = cluster.api.create(RESOURCE_SLICES, resource_slice(cluster.name, node=cluster.name))
    assert cluster.api.update(RESOURCE_SLICES, first) == first
    del first["metadata"]["resourceVersion"]
    again = cluster.api.update(RESOURCE_SLICES, first)
    assert cluster.api.get(RESOURCE_SLICES, cluster.name) == again


def test_optimistic_locking(cluster: Cluster) -> None:
    old = cluster.api.create(CONFIG_MAPS, config_map("locked", cluster.namespace, a="1"))
    cluster.api.update(CONFIG_MAPS, config_map("locked", cluster.namespace, a="2"))
    with pytest.raises(Conflict, match="the object has been modified; please apply your changes") as caught:
        cluster.api.update(CONFIG_MAPS, old)
    assert caught.value.reason == "Conflict"
    assert not isinstance(caught.value, AlreadyExists)


def test_update_of_another_incarnation(cluster: Cluster) -> None:
    obj = cluster.api.create(CONFIG_MAPS, config_map("again", cluster.namespace))
    cluster.api.delete(CONFIG_MAPS, "again", cluster.namespace)
    with pytest.raises(NotFound):
        cluster.api.update(CONFIG_MAPS, obj)
    cluster.api.create(CONFIG_MAPS, config_map("again", cluster.namespace))
    del obj["metadata"]["resourceVersion"]
    with pytest.raises(Conflict, match="UID in precondition"):
        cluster.api.update(CONFIG_MAPS, obj)


def test_leases_are_locked_and_created_by_an_update(cluster: Cluster) -> None:
    created = cluster.api.update(LEASES, lease("leader", cluster.namespace, "one"))
    assert created["spec"]["holderIdentity"] == "one"
    with pytest.raises(Invalid) as caught:
        cluster.api.update(LEASES, lease("leader", cluster.namespace, "two"))
    (cause,) = caught.value.details["causes"]
    assert cause == {
        "field": "metadata.resourceVersion",
        "reason": "FieldValueInvalid",
        "message": "Invalid value: 0: must be specified for an update",
    }


def test_main_and_status_updates_leave_each_other_alone(cluster: Cluster) -> None:
    claimed = claim("gpu", cluster.namespace)
    claimed["status"] = {"allocation": allocation("n1")}
    created = cluster.api.create(RESOURCE_CLAIMS, claimed)
    assert created["status"] == {}
    created["status"] = {"allocation": allocation("n1")}
    assert cluster.api.update(RESOURCE_CLAIMS, created)["status"] == {}

    changed = {**created, "metadata": {**created["metadata"], "labels": {"a": "b"}}}
    updated = cluster.api.update(RESOURCE_CLAIMS, changed, subresource="status")
    assert updated["status"]["allocation"]["devices"]["results"][0]["device"] == "gpu-0"
    assert "labels" not in updated["metadata"]


def test_status_where_there_is_none(cluster: Cluster) -> None:
    created = cluster.api.create(RESOURCE_SLICES, resource_slice(cluster.name, node=cluster.name))
    with pytest.raises(NotFound, match="the server could not find the requested resource"):
        cluster.api.update(RESOURCE_SLICES, created, subresource="status")


def test_a_node_is_created_with_its_status(cluster: Cluster) -> None:
    node = cluster.api.create(
        NODES, {"metadata": {"name": cluster.name}, "status": {"capacity": {"cpu": "4000m"}}, "spec": {}}
    )
    assert node["status"]["capacity"]["cpu"] in ("4", "4000m")
    assert "generation" not in node["metadata"]


def test_dry_run_changes_nothing(cluster: Cluster) -> None:
    dry = cluster.api.create(RESOURCE_CLAIMS, claim("dry", cluster.namespace), dry_run=True)
    assert dry["metadata"]["uid"]
    assert "resourceVersion" not in dry["metadata"]
    with pytest.raises(NotFound):
        cluster.api.get(RESOURCE_CLAIMS, "dry", cluster.namespace)
    with pytest.raises(Invalid):
        cluster.api.create(RESOURCE_SLICES, resource_slice(cluster.name, node=cluster.name, driver="A_B"), dry_run=True)
    kept = cluster.api.create(CONFIG_MAPS, config_map("kept", cluster.namespace, a="1"))
    cluster.api.update(CONFIG_MAPS, config_map("kept", cluster.namespace, a="2"), dry_run=True)
    patched = cluster.api.patch(CONFIG_MAPS, "kept", {"data": {"a": "3"}}, cluster.namespace, dry_run=True)
    assert patched["data"] == {"a": "3"}
    assert cluster.api.get(CONFIG_MAPS, "kept", cluster.namespace) == kept


def test_delete_and_preconditions(cluster: Cluster) -> None:
    api, namespace = cluster.api, cluster.namespace
    obj = api.create(CONFIG_MAPS, config_map("gone", namespace))
    uid, version = obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]
    with pytest.raises(Conflict, match="the UID in the precondition"):
        api.delete(CONFIG_MAPS, "gone", namespace, preconditions=Preconditions(uid="other"))
    with pytest.raises(Conflict, match="the ResourceVersion in the precondition"):
        api.delete(CONFIG_MAPS, "gone", namespace, preconditions=Preconditions(uid=uid, resource_version="1"))
    api.delete(CONFIG_MAPS, "gone", namespace, preconditions=Preconditions(uid=uid, resource_version=version))
    with pytest.raises(NotFound, match='configmaps "gone" not found'):
        api.delete(CONFIG_MAPS, "gone", namespace)


def test_finalizers_hold_an_object(cluster: Cluster) -> None:
    api, namespace = cluster.api, cluster.namespace
    obj = config_map("held", namespace)
    obj["metadata"]["finalizers"] = ["gpu-dra.dev/hold"]
    api.create(CONFIG_MAPS, obj)
    api.delete(CONFIG_MAPS, "held", namespace)
    held = api.get(CONFIG_MAPS, "held", namespace)
    assert held["metadata"]["deletionTimestamp"]
    assert held["metadata"]["deletionGracePeriodSeconds"] == 0
    with pytest.raises(AlreadyExists, match="object is being deleted"):
        api.create(CONFIG_MAPS, config_map("held", namespace))
    more = {"metadata": {"finalizers": ["gpu-dra.dev/hold", "gpu-dra.dev/more"]}}
    with pytest.raises(Invalid) as caught:
        api.patch(CONFIG_MAPS, "held", more, namespace)
    assert caught.value.details["causes"][0]["field"] == "metadata.finalizers"
    held["metadata"]["finalizers"] = []
    api.update(CONFIG_MAPS, held)
    with pytest.raises(NotFound):
        api.get(CONFIG_MAPS, "held", namespace)


def test_pods_go_at_once_or_with_grace(cluster: Cluster) -> None:
    api, namespace = cluster.api, cluster.namespace
    created = api.create(PODS, pod("unbound", namespace))
    assert created["status"]["phase"] == "Pending"
    assert created["spec"]["containers"][0]["resources"]["requests"] == {"nvidia.com/gpu": "1"}
    api.delete(PODS, "unbound", namespace)
    with pytest.raises(NotFound):
        api.get(PODS, "unbound", namespace)

    bound = pod("bound", namespace)
    bound["spec"]["nodeName"] = "n1"
    api.create(PODS, bound)
    api.delete(PODS, "bound", namespace)
    leaving = api.get(PODS, "bound", namespace)
    assert leaving["metadata"]["deletionGracePeriodSeconds"] == 30
    assert leaving["metadata"]["deletionTimestamp"]
    assert leaving["metadata"]["generation"] == 2
    api.delete(PODS, "bound", namespace, grace_period_seconds=0)
    with pytest.raises(NotFound):
        api.get(PODS, "bound", namespace)


def test_a_bound_pod_stays_where_it_is(cluster: Cluster) -> None:
    bound = pod("bound", cluster.namespace)
    bound["spec"]["nodeName"] = "n1"
    cluster.api.create(PODS, bound)
    with pytest.raises(Invalid) as caught:
        cluster.api.patch(PODS, "bound", {"spec": {"nodeName": "n2"}}, cluster.namespace)
    assert [c["field"] for c in caught.value.details["causes"]] == ["spec"]


def test_device_classes_count_their_generation(cluster: Cluster) -> None:
    cluster.api.create(DEVICE_CLASSES, {"metadata": {"name": cluster.name}, "spec": {}})
    patch = {"spec": {"extendedResourceName": "example.com/gpu"}}
    assert cluster.api.patch(DEVICE_CLASSES, cluster.name, patch)["metadata"]["generation"] == 2


def test_delete_collection_by_selectors(cluster: Cluster) -> None:
    api, node = cluster.api, cluster.name
    for index, (where, driver) in enumerate(
        [(node, "gpu.nvidia.com"), (node, "other.example.com"), (f"{node}-b", "gpu.nvidia.com")]
    ):
        api.create(RESOURCE_SLICES, resource_slice(f"{node}-{index}", node=where, driver=driver))
    api.delete_collection(RESOURCE_SLICES, field_selector=f"spec.nodeName={node},spec.driver=gpu.nvidia.com")
    left = [o["metadata"]["name"] for o in api.list(RESOURCE_SLICES).items if o["metadata"]["name"].startswith(node)]
    assert left == [f"{node}-1", f"{node}-2"]
    api.delete_collection(RESOURCE_SLICES, field_selector=f"spec.nodeName={node}")
    left = [o["metadata"]["name"] for o in api.list(RESOURCE_SLICES).items if o["metadata"]["name"].startswith(node)]
    assert left == [f"{node}-2"]


def test_an_owner_takes_its_dependants_along(cluster: Cluster) -> None:
    if cluster.kind == "real":
        pytest.skip("a lone API server collects no garbage: that is the controller-manager's work")
    api = cluster.api
    node = api.create(NODES, {"metadata": {"name": cluster.name}})
    owned = resource_slice(cluster.name, node=cluster.name)
    owned["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "Node", "name": cluster.name, "uid": node["metadata"]["uid"], "controller": True}
    ]
    api.create(RESOURCE_SLICES, owned)
    api.delete(NODES, cluster.name)
    with pytest.raises(NotFound):
        api.get(RESOURCE_SLICES, cluster.name)
    api.create(NODES, {"metadata": {"name": cluster.name}})
    api.create(RESOURCE_SLICES, owned)  # owned by the node that is gone, not by its successor
    with pytest.raises(NotFound):
        api.get(RESOURCE_SLICES, cluster.name)
