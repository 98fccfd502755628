"""EmbeddedApi where it goes beyond the contract tests: collection, features, history, isolation, counting, threads."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from dra_driver.kube.interface import (
    CONFIG_MAPS,
    DEVICE_CLASSES,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    Conflict,
    EventType,
    Expired,
    Forbidden,
    Invalid,
    KubeApi,
    NotFound,
    Obj,
    PatchType,
)
from dra_driver.simulation.store import OFF_BY_DEFAULT, AuditEntry, EmbeddedApi
from dra_driver.simulation.store.features import KNOWN
from tests.contract.objects import claim, config_map, pod, resource_slice


@pytest.fixture
def api() -> EmbeddedApi:
    return EmbeddedApi()


def owned_by(*owners: Obj) -> list[Obj]:
    return [
        {"apiVersion": o["apiVersion"], "kind": o["kind"], "name": o["metadata"]["name"], "uid": o["metadata"]["uid"]}
        for o in owners
    ]


def test_it_is_a_kube_api(api: EmbeddedApi) -> None:
    as_protocol: KubeApi = api
    assert [o["metadata"]["name"] for o in as_protocol.list(NAMESPACES).items] == [
        "default",
        "kube-public",
        "kube-system",
    ]


def test_objects_belong_to_the_caller(api: EmbeddedApi) -> None:
    given = config_map("a", "default", x="1")
    created = api.create(CONFIG_MAPS, given)
    with api.watch(CONFIG_MAPS, resource_version="0", timeout_seconds=5) as events:
        seen = next(events).object
    for obj in (given, created, seen, api.list(CONFIG_MAPS).items[0]):
        obj["data"]["x"] = "changed"
        obj["metadata"].clear()
    assert api.get(CONFIG_MAPS, "a", "default")["data"] == {"x": "1"}
    assert "uid" not in given["metadata"]


def test_a_patch_does_not_reach_into_the_old_object(api: EmbeddedApi) -> None:
    api.create(PODS, pod("a", "default"))
    start = api.list(PODS).resource_version
    patch = {"spec": {"containers": [{"name": "main", "image": "other", "resources": {"limits": {"cpu": "1000m"}}}]}}
    api.patch(PODS, "a", patch, "default", patch_type=PatchType.STRATEGIC)
    api.patch(PODS, "a", {"metadata": {"labels": {"a": "b"}}}, "default")
    with api.watch(PODS, resource_version=start, timeout_seconds=5) as events:
        first = next(events).object
    assert "labels" not in first["metadata"]
    assert first["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1", "cpu": "1"}


class TestGarbage:
    def test_one_living_owner_is_enough(self, api: EmbeddedApi) -> None:
        one, two = (api.create(CONFIG_MAPS, config_map(name, "default")) for name in ("one", "two"))
        child = config_map("child", "default")
        child["metadata"]["ownerReferences"] = owned_by(one, two)
        api.create(CONFIG_MAPS, child)
        api.delete(CONFIG_MAPS, "one", "default")
        api.get(CONFIG_MAPS, "child", "default")
        api.delete(CONFIG_MAPS, "two", "default")
        with pytest.raises(NotFound):
            api.get(CONFIG_MAPS, "child", "default")

    def test_grandchildren_go_too_and_finalizers_hold(self, api: EmbeddedApi) -> None:
        root = api.create(NODES, {"metadata": {"name": "root"}})
        middle = config_map("middle", "default")
        middle["metadata"]["ownerReferences"] = owned_by(root)
        created = api.create(CONFIG_MAPS, middle)
        leaf = config_map("leaf", "default")
        leaf["metadata"] |= {"ownerReferences": owned_by(created), "finalizers": ["gpu-dra.dev/hold"]}
        api.create(CONFIG_MAPS, leaf)
        api.delete(NODES, "root")
        with pytest.raises(NotFound):
            api.get(CONFIG_MAPS, "middle", "default")
        held = api.get(CONFIG_MAPS, "leaf", "default")
        assert held["metadata"]["deletionTimestamp"]
        api.patch(CONFIG_MAPS, "leaf", {"metadata": {"finalizers": None}}, "default")
        with pytest.raises(NotFound):
            api.get(CONFIG_MAPS, "leaf", "default")

    def test_a_claim_of_a_pod_goes_with_the_pod(self, api: EmbeddedApi) -> None:
        owner = api.create(PODS, pod("p", "default"))
        owned = claim("c", "default")
        owned["metadata"]["ownerReferences"] = owned_by(owner)
        api.create(RESOURCE_CLAIMS, owned)
        api.delete(PODS, "p", "default")
        with pytest.raises(NotFound):
            api.get(RESOURCE_CLAIMS, "c", "default")

    def test_collection_is_not_a_request(self, api: EmbeddedApi) -> None:
        node = api.create(NODES, {"metadata": {"name": "n"}})
        owned = resource_slice("s", node="n")
        owned["metadata"]["ownerReferences"] = owned_by(node)
        api.create(RESOURCE_SLICES, owned)
        api.delete(NODES, "n")
        assert api.writes()[("delete", "resourceslices")] == 0


class TestPods:
    def test_bind_once(self, api: EmbeddedApi) -> None:
        api.create(PODS, pod("p", "default"))
        api.bind("p", "default", "n1")
        bound = api.get(PODS, "p", "default")
        assert bound["spec"]["nodeName"] == "n1"
        assert bound["status"]["conditions"][0]["type"] == "PodScheduled"
        assert bound["metadata"]["generation"] == 2
        with pytest.raises(Conflict, match='already assigned to node "n1"'):
            api.bind("p", "default", "n2")

    def test_a_leaving_pod_is_not_bound(self, api: EmbeddedApi) -> None:
        held = pod("p", "default")
        held["metadata"]["finalizers"] = ["gpu-dra.dev/hold"]
        api.create(PODS, held)
        api.delete(PODS, "p", "default")
        with pytest.raises(Conflict, match="being deleted"):
            api.bind("p", "default", "n1")

    def test_a_finished_pod_goes_at_once(self, api: EmbeddedApi) -> None:
        api.create(PODS, pod("p", "default"))
        api.bind("p", "default", "n1")
        api.patch(PODS, "p", {"status": {"phase": "Succeeded"}}, "default", subresource="status")
        api.delete(PODS, "p", "default")
        with pytest.raises(NotFound):
            api.get(PODS, "p", "default")

    def test_grace_can_be_shortened_not_lengthened(self, api: EmbeddedApi) -> None:
        api.create(PODS, pod("p", "default"))
        api.bind("p", "default", "n1")
        api.delete(PODS, "p", "default", grace_period_seconds=20)
        first = api.get(PODS, "p", "default")
        api.delete(PODS, "p", "default", grace_period_seconds=25)
        assert api.get(PODS, "p", "default") == first
        api.delete(PODS, "p", "default", grace_period_seconds=5)
        assert api.get(PODS, "p", "default")["metadata"]["deletionGracePeriodSeconds"] == 5

    def test_a_pod_needs_containers(self, api: EmbeddedApi) -> None:
        with pytest.raises(Invalid, match=r'Pod "p" is invalid: spec.containers: Required value'):
            api.create(PODS, {"metadata": {"name": "p", "namespace": "default"}, "spec": {}})


class TestNamespaces:
    def test_a_namespace_ends_with_its_content(self, api: EmbeddedApi) -> None:
        api.create(NAMESPACES, {"metadata": {"name": "ml"}})
        api.create(CONFIG_MAPS, config_map("a", "ml"))
        api.create(PODS, pod("p", "ml"))
        api.bind("p", "ml", "n1")
        api.delete(NAMESPACES, "ml")
        assert api.get(NAMESPACES, "ml")["status"]["phase"] == "Terminating"
        assert api.list(CONFIG_MAPS, "ml").items == []
        with pytest.raises(Forbidden, match="because it is being terminated"):
            api.create(CONFIG_MAPS, config_map("b", "ml"))
        api.delete(PODS, "p", "ml", grace_period_seconds=0)
        with pytest.raises(NotFound):
            api.get(NAMESPACES, "ml")

    def test_an_empty_one_ends_at_once_and_default_never(self, api: EmbeddedApi) -> None:
        api.create(NAMESPACES, {"metadata": {"name": "ml"}})
        api.delete(NAMESPACES, "ml")
        with pytest.raises(NotFound):
            api.get(NAMESPACES, "ml")
        with pytest.raises(Forbidden, match="may not be deleted"):
            api.delete(NAMESPACES, "default")


class TestFeatures:
    RICH: Obj = {  # noqa: RUF012 - never changed
        "name": "gpu-0",
        "allowMultipleAllocations": True,
        "capacity": {"memory": {"value": "80Gi", "requestPolicy": {"default": "10Gi", "validRange": {"min": "10Gi"}}}},
        "taints": [{"key": "a", "effect": "NoSchedule"}],
        "consumesCounters": [{"counterSet": "s", "counters": {"memory": {"value": "1"}}}],
    }

    @staticmethod
    def create(api: EmbeddedApi, name: str = "s") -> Obj:
        created = api.create(RESOURCE_SLICES, resource_slice(name, node="n", devices=[TestFeatures.RICH]))
        device: Obj = created["spec"]["devices"][0]
        return device

    def test_everything_is_kept_when_on(self, api: EmbeddedApi) -> None:
        assert self.create(api).keys() == self.RICH.keys()

    @pytest.mark.parametrize(
        ("feature", "dropped"),
        [
            ("DRAPartitionableDevices", {"consumesCounters"}),
            ("DRADeviceTaints", {"taints"}),
            ("DRAConsumableCapacity", {"allowMultipleAllocations"}),
        ],
    )
    def test_a_feature_that_is_off_drops_its_fields(self, feature: str, dropped: set[str]) -> None:
        api = EmbeddedApi(disabled_features=OFF_BY_DEFAULT | {feature})
        device = self.create(api)
        assert self.RICH.keys() - device.keys() == dropped
        assert ("requestPolicy" in device["capacity"]["memory"]) is (feature != "DRAConsumableCapacity")

    def test_claims_without_consumable_capacity(self) -> None:
        api = EmbeddedApi(disabled_features=OFF_BY_DEFAULT | {"DRAConsumableCapacity"})
        api.create(NAMESPACES, {"metadata": {"name": "a"}})
        asked = {"capacity": {"requests": {"shares": "1"}}}
        obj = claim("c", "a")
        obj["spec"]["devices"]["requests"] = [{"name": "r", "exactly": {"deviceClassName": "gpu.nvidia.com", **asked}}]
        created = api.create(RESOURCE_CLAIMS, obj)
        assert "capacity" not in created["spec"]["devices"]["requests"][0]["exactly"]
        device = {"driver": "gpu.nvidia.com", "pool": "n", "device": "gpu-0"}
        share = {**device, "shareID": "00000000-0000-4000-8000-000000000000"}
        results = [{"request": "r", **share, "consumedCapacity": {"shares": "1"}}]
        status = {"allocation": {"devices": {"results": results}}, "devices": [share]}
        written = api.update(RESOURCE_CLAIMS, {**created, "status": status}, subresource="status")["status"]
        assert written["allocation"]["devices"]["results"] == [{"request": "r", **device}]
        assert written["devices"] == [device]

    def test_fields_that_are_stored_survive_an_update(self) -> None:
        features: set[str] = set()
        api = EmbeddedApi(disabled_features=features)  # type: ignore[arg-type]  # switched while it runs
        self.create(api)
        features.add("DRADeviceTaints")
        updated = api.patch(RESOURCE_SLICES, "s", {"metadata": {"labels": {"a": "b"}}})
        assert "taints" in updated["spec"]["devices"][0]
        assert "taints" not in self.create(api, "t")

    def test_shared_counters_and_extended_resources(self) -> None:
        api = EmbeddedApi(disabled_features=frozenset({"DRAPartitionableDevices", "DRAExtendedResource"}))
        obj = resource_slice("s", node="n")
        obj["spec"]["sharedCounters"] = [{"name": "c", "counters": {"m": {"value": "1"}}}]
        assert "sharedCounters" not in api.create(RESOURCE_SLICES, obj)["spec"]
        named: Obj = {"metadata": {"name": "c"}, "spec": {"extendedResourceName": "nvidia.com/gpu"}}
        assert api.create(DEVICE_CLASSES, named)["spec"] == {}

    def test_alpha_features_are_off(self, api: EmbeddedApi) -> None:
        device = {"name": "gpu-0", "attributes": {"a": {"strings": ["x"], "string": "y"}}}
        created = api.create(RESOURCE_SLICES, resource_slice("s", node="n", devices=[device]))
        assert created["spec"]["devices"][0]["attributes"] == {"a": {"string": "y"}}
        assert OFF_BY_DEFAULT <= KNOWN


class TestHistory:
    def test_it_is_bounded(self) -> None:
        api = EmbeddedApi(history=4)
        start = api.list(CONFIG_MAPS).resource_version
        for index in range(9):
            last = api.create(CONFIG_MAPS, config_map(f"c{index}", "default"))
        with pytest.raises(Expired), api.watch(CONFIG_MAPS, resource_version=start) as events:
            next(events)
        recent = str(int(last["metadata"]["resourceVersion"]) - 2)
        with api.watch(CONFIG_MAPS, resource_version=recent) as events:
            assert [next(events).object["metadata"]["name"] for _ in range(2)] == ["c7", "c8"]

    def test_a_reader_too_slow_for_it_is_told(self) -> None:
        api = EmbeddedApi(history=2)
        with api.watch(CONFIG_MAPS, resource_version=api.list(CONFIG_MAPS).resource_version) as events:
            for index in range(9):
                api.create(CONFIG_MAPS, config_map(f"c{index}", "default"))
            with pytest.raises(Expired):
                next(events)

    def test_pages_end_with_a_compaction(self, api: EmbeddedApi) -> None:
        for index in range(3):
            api.create(CONFIG_MAPS, config_map(f"c{index}", "default"))
        token = api.list(CONFIG_MAPS, limit=1).continue_token
        api.compact()
        with pytest.raises(Expired, match="too old"):
            api.list(CONFIG_MAPS, limit=1, continue_token=token)

    def test_other_resources_do_not_wear_it_out(self) -> None:
        api = EmbeddedApi(history=2)
        start = api.list(NODES).resource_version
        for index in range(20):
            api.create(CONFIG_MAPS, config_map(f"c{index}", "default"))
        api.create(NODES, {"metadata": {"name": "n"}})
        with api.watch(NODES, resource_version=start) as events:
            assert next(events).type is EventType.ADDED


def test_open_watches_can_be_ended_together(api: EmbeddedApi) -> None:
    ended: list[list[Any]] = []

    def follow(opened: threading.Event) -> None:
        with api.watch(CONFIG_MAPS, resource_version="1") as events:
            opened.set()
            ended.append(list(events))

    threads = []
    for _ in range(3):
        opened = threading.Event()
        threads.append(threading.Thread(target=follow, args=(opened,), name="follower"))
        threads[-1].start()
        assert opened.wait(5)
    assert api.open_watches == 3
    api.close_watches()
    for thread in threads:
        thread.join(5)
    assert ended == [[], [], []]
    assert api.open_watches == 0


class TestAudit:
    def test_writes_are_counted_as_asked(self, api: EmbeddedApi) -> None:
        created = api.create(CONFIG_MAPS, config_map("a", "default"))
        api.update(CONFIG_MAPS, created)
        api.update(CONFIG_MAPS, created, dry_run=True)
        api.get(CONFIG_MAPS, "a", "default")
        with pytest.raises(NotFound):
            api.delete(CONFIG_MAPS, "absent", "default")
        assert api.writes() == {
            ("create", "configmaps"): 1,
            ("update", "configmaps"): 1,
            ("delete", "configmaps"): 1,
        }

    def test_the_hook_sees_everything_and_may_call_back(self) -> None:
        seen: list[AuditEntry] = []
        api = EmbeddedApi(audit=seen.append)
        api.patch(
            CONFIG_MAPS, "a", {"data": {}}, "default", patch_type=PatchType.APPLY, field_manager="m", dry_run=True
        )
        with pytest.raises(NotFound):
            api.get(CONFIG_MAPS, "a", "default")
        with api.watch(CONFIG_MAPS, "default", resource_version="1"):
            pass
        assert seen == [
            AuditEntry("patch", "configmaps", "default", "a", dry_run=True),
            AuditEntry("get", "configmaps", "default", "a", code=404),
            AuditEntry("watch", "configmaps", "default", ""),
        ]


def test_the_clock_is_given() -> None:
    api = EmbeddedApi(now=lambda: datetime(2026, 11, 23, 8, 3, 30, 999, tzinfo=UTC))
    assert api.create(NODES, {"metadata": {"name": "n"}})["metadata"]["creationTimestamp"] == "2026-11-23T08:03:30Z"


def test_expressions_are_checked_by_what_is_given() -> None:
    api = EmbeddedApi(check_expression=lambda text: "no device" if "device" not in text else None)
    selector = {"selectors": [{"cel": {"expression": "1 +"}}]}
    with pytest.raises(Invalid, match="no device"):
        api.create(DEVICE_CLASSES, {"metadata": {"name": "c"}, "spec": selector})


def test_parallel_updates_lose_nothing(api: EmbeddedApi) -> None:
    api.create(CONFIG_MAPS, config_map("counter", "default", n="0"))
    conflicts = 0

    def count() -> None:
        nonlocal conflicts
        done = 0
        while done < 25:
            obj = api.get(CONFIG_MAPS, "counter", "default")
            obj["data"]["n"] = str(int(obj["data"]["n"]) + 1)
            try:
                api.update(CONFIG_MAPS, obj)
                done += 1
            except Conflict:
                conflicts += 1

    start = api.list(CONFIG_MAPS).resource_version
    threads = [threading.Thread(target=count, name=f"counter-{i}") for i in range(4)]
    for thread in threads:
        thread.start()
    with api.watch(CONFIG_MAPS, resource_version=start) as events:
        seen = [next(events).object["data"]["n"] for _ in range(100)]
    for thread in threads:
        thread.join()
    assert seen == [str(n) for n in range(1, 101)]
