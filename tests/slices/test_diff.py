"""Planning writes: nothing when nothing changed, generations that only rise, nothing of others touched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dra_driver.devices.model import DeviceSet
from dra_driver.slices.cutting import PoolOwner, SliceSpec, desired_slices
from dra_driver.slices.diff import SliceDelete, WritePlan, dropped_fields, plan_writes, slice_index
from dra_driver.slices.encode import Obj, encode_slice
from dra_driver.slices.features import ApiFeatures
from tests.long_runs import steps
from tests.slices.builders import (
    FEATURES,
    NOW,
    OWNER,
    SliceServer,
    api_features,
    device_sets,
    partitioned_set,
    shareable,
    taint,
    whole,
)


def cut(*devices: Any) -> tuple[SliceSpec, ...]:
    return desired_slices(DeviceSet(devices), OWNER, FEATURES)


def many(count: int, **changes: Any) -> tuple[SliceSpec, ...]:
    return cut(*(replace(whole(number), **changes) for number in range(count)))


def published(desired: tuple[SliceSpec, ...]) -> SliceServer:
    server = SliceServer()
    server.apply(plan_writes(desired, [], owner=OWNER))
    return server


def only(server: SliceServer) -> Obj:
    (item,) = server.slices.values()
    return item


def test_first_publication_is_generation_one() -> None:
    plan = plan_writes(cut(whole(0)), [], owner=OWNER)
    assert (len(plan.creates), plan.updates, plan.deletes, plan.generation) == (1, (), (), 1)
    assert plan.creates[0]["spec"]["pool"] == {"name": "node-0", "generation": 1, "resourceSliceCount": 1}


def test_nothing_is_written_when_nothing_changed() -> None:
    desired = many(150)
    server = published(desired)
    plan = plan_writes(desired, server.list(), owner=OWNER)
    assert plan.is_empty
    assert plan.generation == 1


def test_one_changed_slice_is_updated_in_place_at_its_generation() -> None:
    server = published(many(150))
    plan = plan_writes(cut(whole(0, taint()), *map(whole, range(1, 150))), server.list(), owner=OWNER)
    assert (len(plan.creates), len(plan.updates), plan.deletes, plan.generation) == (0, 1, (), 1)
    server.apply(plan)
    assert {item["spec"]["pool"]["generation"] for item in server.list()} == {1}


def test_two_changed_slices_move_the_whole_pool() -> None:
    server = published(many(150))
    changed = cut(whole(0), *map(shareable, range(1, 65)), *map(whole, range(65, 150)))
    plan = plan_writes(changed, server.list(), owner=OWNER)
    assert (len(plan.creates), len(plan.updates), plan.deletes, plan.generation) == (0, 3, (), 2)
    server.apply(plan)
    assert plan_writes(changed, server.list(), owner=OWNER).is_empty


def test_devices_that_only_change_places_stay_at_their_generation() -> None:
    """In however many slices; and one slice that says something else beside them may still change in place."""
    server = published(many(150))
    turned = [*map(whole, reversed(range(64))), *map(whole, reversed(range(64, 128))), *map(whole, range(128, 150))]
    plan = plan_writes(cut(*turned), server.list(), owner=OWNER)
    assert (len(plan.creates), len(plan.updates), plan.deletes, plan.generation) == (0, 2, (), 1)
    tainted = [*turned[:-1], whole(149, taint())]
    plan = plan_writes(cut(*tainted), server.list(), owner=OWNER)
    assert (len(plan.updates), plan.generation) == (3, 1)
    server.apply(plan)
    assert plan_writes(cut(*tainted), server.list(), owner=OWNER).is_empty


def test_devices_that_only_get_and_lose_taints_stay_at_their_generation() -> None:
    """In however many slices: a GPU's devices may be in several. None of them is gone in between."""
    healthy = [whole(number) for number in range(150)]
    sick = [whole(number, taint()) if number in (3, 70, 140) else whole(number) for number in range(150)]
    server = published(cut(*healthy))
    for devices in (sick, healthy, [*reversed(sick[:64]), *sick[64:]]):
        plan = plan_writes(cut(*devices), server.list(), owner=OWNER)
        assert (len(plan.creates), len(plan.updates), plan.deletes, plan.generation) == (0, 3, (), 1)
        server.apply(plan)
        assert plan_writes(cut(*devices), server.list(), owner=OWNER).is_empty
    # More than taints in two slices.
    other = [whole(0, taint()), *map(shareable, range(1, 65)), *map(whole, range(65, 150))]
    assert plan_writes(cut(*other), server.list(), owner=OWNER).generation == 2


def test_a_device_that_changes_its_slice_moves_the_whole_pool() -> None:
    server = published(many(150))
    swapped = [whole(64), *map(whole, range(1, 64)), whole(0), *map(whole, range(65, 150))]
    plan = plan_writes(cut(*swapped), server.list(), owner=OWNER)
    assert (len(plan.updates), plan.generation) == (3, 2)


def test_growing_and_shrinking_raise_the_generation() -> None:
    server = published(many(10))
    grow = plan_writes(many(100), server.list(), owner=OWNER)
    assert (len(grow.creates), len(grow.updates), len(grow.deletes), grow.generation) == (1, 1, 0, 2)
    server.apply(grow)
    shrink = plan_writes(many(10), server.list(), owner=OWNER)
    assert (len(shrink.creates), len(shrink.updates), len(shrink.deletes), shrink.generation) == (0, 1, 1, 3)
    server.apply(shrink)
    assert only(server)["spec"]["pool"] == {"name": "node-0", "generation": 3, "resourceSliceCount": 1}


def test_a_partial_wipe_is_repaired_at_a_new_generation() -> None:
    server = published(many(150))
    server.slices.popitem()
    plan = plan_writes(many(150), server.list(), owner=OWNER)
    assert (len(plan.creates), len(plan.updates), plan.generation) == (1, 2, 2)


def test_after_a_total_wipe_the_generation_goes_on_from_the_floor() -> None:
    assert plan_writes(many(1), [], owner=OWNER, generation_floor=7).generation == 8
    server = published(many(1))
    assert plan_writes(many(1), server.list(), owner=OWNER, generation_floor=7).is_empty
    assert plan_writes(many(2), server.list(), owner=OWNER, generation_floor=7).generation == 8
    assert plan_writes(many(2), server.list(), owner=OWNER, generation_floor=1).generation == 1


def test_slices_of_a_lower_generation_are_deleted_and_made_again() -> None:
    desired = many(100)
    server = published(desired)
    first, second = server.slices.values()
    first["spec"]["pool"]["generation"] = 5
    plan = plan_writes(desired, server.list(), owner=OWNER)
    stale = second["metadata"]
    assert plan.deletes == (SliceDelete(stale["name"], stale["uid"], stale["resourceVersion"]),)
    assert (len(plan.creates), len(plan.updates), plan.generation) == (1, 1, 6)
    server.apply(plan)
    assert plan_writes(desired, server.list(), owner=OWNER).is_empty


def test_leftovers_of_a_lower_generation_go_without_a_new_generation() -> None:
    server = published(many(1))
    old = encode_slice(SliceSpec(4), OWNER, generation=0, count=9)
    old["metadata"] |= {"name": "00004-old", "uid": "u", "resourceVersion": "9"}
    server.slices["00004-old"] = old
    plan = plan_writes(many(1), server.list(), owner=OWNER)
    assert (plan.creates, plan.updates, len(plan.deletes), plan.generation) == ((), (), 1, 1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda item: item["metadata"].update(name="gpu.nvidia.com-node-0-abcde"),
        lambda item: item["metadata"]["ownerReferences"][0].update(uid="another-node-object"),
        lambda item: item["metadata"].update(ownerReferences=None),
        lambda item: item["spec"].update(nodeName="node-1"),
        lambda item: item["metadata"].update(name="00009-gpu.nvidia.com-node-0-abcde"),
    ],
    ids=["name of another form", "another Node object", "no owner", "another node", "index not wanted"],
)
def test_slices_that_cannot_be_kept_are_replaced(spoil: Callable[[Obj], None]) -> None:
    server = published(many(1))
    spoiled = only(server)
    spoil(spoiled)
    plan = plan_writes(many(1), [spoiled], owner=OWNER)
    assert [delete.name for delete in plan.deletes] == [spoiled["metadata"]["name"]]
    assert (len(plan.creates), plan.updates, plan.generation) == (1, (), 2)


def test_of_two_slices_for_one_index_one_is_kept() -> None:
    server = published(many(1))
    twin = copy.deepcopy(only(server))
    twin["metadata"] |= {"name": "00000-gpu.nvidia.com-node-0-zzzzz", "uid": "twin"}
    plan = plan_writes(many(1), [twin, *server.list()], owner=OWNER)
    assert [delete.uid for delete in plan.deletes] == ["twin"]
    assert (plan.creates, len(plan.updates), plan.generation) == ((), 1, 2)


def test_a_slice_that_is_being_deleted_is_neither_kept_nor_deleted_again() -> None:
    server = published(many(1))
    only(server)["metadata"]["deletionTimestamp"] = NOW
    plan = plan_writes(many(1), server.list(), owner=OWNER)
    assert (len(plan.creates), plan.updates, plan.deletes, plan.generation) == (1, (), (), 2)


def test_slices_of_other_drivers_and_pools_are_not_touched() -> None:
    other_driver = encode_slice(
        SliceSpec(0), PoolOwner("other.example", "node-0", OWNER.node_uid), generation=9, count=1
    )
    other_pool = encode_slice(SliceSpec(0), PoolOwner(OWNER.driver, "node-1", "x"), generation=9, count=1)
    for number, item in enumerate((other_driver, other_pool)):
        item["metadata"] |= {"name": f"00000-{number}", "uid": "u", "resourceVersion": "1"}
    plan = plan_writes(many(1), [other_driver, other_pool], owner=OWNER)
    assert (len(plan.creates), plan.updates, plan.deletes, plan.generation) == (1, (), (), 1)


@pytest.mark.parametrize(
    "echo",
    [
        lambda spec: spec["devices"][0]["capacity"]["memory"].update(value="81920Mi"),
        lambda spec: spec["devices"][0]["capacity"]["memory"]["requestPolicy"].update(validValues=None),
        lambda spec: spec["devices"][0]["attributes"]["uuid"].update(int=None, strings=None),
        lambda spec: spec["devices"][0].update(taints=[], consumesCounters=None, bindsToNode=False),
        lambda spec: spec.update(sharedCounters=None, perDeviceNodeSelection=None),
        lambda spec: spec["devices"][0].update(fieldOfANewerServer={"defaulted": True}),
        lambda spec: spec["devices"].insert(0, dict(reversed(spec["devices"].pop(0).items()))),
    ],
    ids=["quantity", "null list", "null scalars", "empty lists", "null in spec", "unknown default", "key order"],
)
def test_an_echo_that_means_the_same_is_not_rewritten(echo: Callable[[Obj], None]) -> None:
    desired = cut(shareable(0), whole(1))
    server = published(desired)
    echo(only(server)["spec"])
    assert plan_writes(desired, server.list(), owner=OWNER).is_empty


@pytest.mark.parametrize(
    "edit",
    [
        lambda spec: spec["devices"].reverse(),
        lambda spec: spec["devices"].pop(),
        lambda spec: spec["devices"][0]["attributes"].update(extra={"string": "x"}),
        lambda spec: spec["devices"][0]["attributes"].pop("uuid"),
        lambda spec: spec["devices"][0]["attributes"].update({"resource.kubernetes.io/numaNode": {"bool": False}}),
        lambda spec: spec["devices"][0]["capacity"]["memory"].update(value="79Gi"),
        lambda spec: spec["devices"][0]["capacity"]["memory"].update(value="much"),
        lambda spec: spec["devices"][0]["capacity"]["memory"]["requestPolicy"]["validRange"].update(step="2Gi"),
        lambda spec: spec["devices"][0].update(allowMultipleAllocations=False),
        lambda spec: spec["devices"][1].update(taints=[{"key": "a", "effect": "NoSchedule", "timeAdded": NOW}]),
        lambda spec: spec["pool"].update(resourceSliceCount=2),
        lambda spec: spec.update(sharedCounters=[{"name": "a", "counters": {"b": {"value": "1"}}}]),
    ],
)
def test_an_edit_by_others_is_repaired_in_place(edit: Callable[[Obj], None]) -> None:
    desired = cut(shareable(0), whole(1))
    server = published(desired)
    edit(only(server)["spec"])
    server.checked = False  # some of these edits would not have passed a server
    plan = plan_writes(desired, server.list(), owner=OWNER)
    assert (plan.creates, len(plan.updates), plan.deletes, plan.generation) == ((), 1, (), 1)
    server.apply(plan)
    assert plan_writes(desired, server.list(), owner=OWNER).is_empty


def test_an_update_keeps_what_others_put_into_the_metadata() -> None:
    server = published(many(1))
    metadata = only(server)["metadata"]
    metadata["labels"] = {"team": "ml"}
    metadata["managedFields"] = [{"manager": "x"}]
    metadata["ownerReferences"].append({"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "c"})
    (update,) = plan_writes(many(2), server.list(), owner=OWNER).updates
    assert update["metadata"]["labels"] == {"team": "ml"}
    assert [owner["kind"] for owner in update["metadata"]["ownerReferences"]] == ["Node", "ConfigMap"]
    assert "managedFields" not in update["metadata"]
    assert update["metadata"]["resourceVersion"] == metadata["resourceVersion"]


class TestTaintTimes:
    """A taint's time starts the toleration seconds of running pods: it must not move by itself."""

    def test_the_servers_time_is_carried_through_updates(self) -> None:
        server = published(cut(whole(0, taint()), whole(1)))
        time = "2026-01-01T00:00:00Z"
        only(server)["spec"]["devices"][0]["taints"][0]["timeAdded"] = time
        assert plan_writes(cut(whole(0, taint()), whole(1)), server.list(), owner=OWNER).is_empty
        (update,) = plan_writes(cut(whole(0, taint()), whole(1, taint())), server.list(), owner=OWNER).updates
        first, second = (device["taints"][0] for device in update["spec"]["devices"])
        assert first["timeAdded"] == time
        assert "timeAdded" not in second

    def test_it_is_carried_into_a_slice_that_is_made_again(self) -> None:
        server = published(cut(whole(0, taint())))
        only(server)["metadata"]["name"] = "old-form"
        (create,) = plan_writes(cut(whole(0, taint())), server.list(), owner=OWNER).creates
        assert create["spec"]["devices"][0]["taints"][0]["timeAdded"] == NOW

    @pytest.mark.parametrize(
        ("wanted", "writes"),
        [
            ("2026-11-23T08:03:31Z", 0),
            ("2026-11-23T08:03:29Z", 0),
            ("2026-11-23T08:03:30.4+00:00", 0),
            ("2026-11-23T08:04:30Z", 1),
        ],
    )
    def test_a_second_of_difference_is_tolerated(self, wanted: str, writes: int) -> None:
        server = published(cut(whole(0, taint())))
        desired = cut(whole(0, replace(taint(), time_added=wanted)))
        plan = plan_writes(desired, server.list(), owner=OWNER)
        assert len(plan.updates) == writes
        if writes:
            assert plan.updates[0]["spec"]["devices"][0]["taints"][0]["timeAdded"] == wanted

    def test_another_value_is_another_taint(self) -> None:
        server = published(cut(whole(0, taint())))
        (update,) = plan_writes(cut(whole(0, taint(value="31"))), server.list(), owner=OWNER).updates
        assert "timeAdded" not in update["spec"]["devices"][0]["taints"][0]


class TestDroppedFields:
    """What a server without the feature gates makes of a slice."""

    def test_an_echo_of_everything_drops_nothing(self) -> None:
        server = SliceServer()
        for desired in (
            cut(shareable(0), whole(1, taint())),
            desired_slices(partitioned_set(2, 2), OWNER, FEATURES),
        ):
            plan = plan_writes(desired, [], owner=OWNER)
            server.apply(plan)
            by_name = {item["metadata"]["generateName"]: item for item in server.list()}
            for sent in plan.creates:
                assert dropped_fields(sent, by_name[sent["metadata"]["generateName"]]) == ()

    def test_stripped_fields_are_named(self) -> None:
        sent = encode_slice(cut(shareable(0), whole(1, taint()))[0], OWNER, generation=1, count=1)
        echoed = copy.deepcopy(sent)
        del echoed["spec"]["devices"][0]["allowMultipleAllocations"]
        echoed["spec"]["devices"][0]["capacity"]["memory"]["requestPolicy"] = None
        echoed["spec"]["devices"][1]["taints"] = []
        dropped = dropped_fields(sent, echoed)
        assert set(dropped) == {
            "spec.devices[0].allowMultipleAllocations",
            "spec.devices[0].capacity[memory].requestPolicy",
            "spec.devices[1].taints",
        }
        assert FEATURES.without(dropped) == ApiFeatures(taints=False, consumable=False)

    def test_a_counters_only_slice_that_comes_back_empty(self) -> None:
        sent = encode_slice(desired_slices(partitioned_set(1, 1), OWNER, FEATURES)[0], OWNER, generation=1, count=2)
        echoed = copy.deepcopy(sent)
        echoed["spec"] = {**echoed["spec"], "sharedCounters": None, "devices": None}
        assert dropped_fields(sent, echoed) == ("spec.sharedCounters",)

    def test_zero_and_false_are_values(self) -> None:
        assert dropped_fields({"spec": {"a": 0, "b": False}}, {"spec": {"a": 0, "b": False}}) == ()
        assert dropped_fields({"spec": {"a": 0, "b": False}}, {"spec": {"c": 1}}) == ("spec.a", "spec.b")


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("00000-gpu.nvidia.com-node-0-abcde", 0),
        ("0001f-x", 31),
        ("100000-x", 2**20),
        ("0000-x", None),
        ("node-0-x", None),
    ],
)
def test_the_index_is_read_from_the_name(name: str, index: int | None) -> None:
    assert slice_index(name) == index


@settings(max_examples=steps(60, 15), deadline=None)
@given(st.lists(st.tuples(device_sets, api_features), min_size=1, max_size=4))
def test_any_history_converges_and_generations_rise(history: list[tuple[DeviceSet, ApiFeatures]]) -> None:
    server = SliceServer()
    server.checked = False  # the one-slice form of 1.34 is among them; test_cutting validates what can be
    generation = 0
    for device_set, features in history:
        desired = desired_slices(device_set, OWNER, features)
        plan = plan_writes(desired, server.list(), owner=OWNER, generation_floor=generation)
        _assert_sound(plan, generation)
        server.apply(plan)
        generation = plan.generation
        assert plan_writes(desired, server.list(), owner=OWNER, generation_floor=generation).is_empty
        found = sorted(server.list(), key=lambda item: str(item["metadata"]["name"]))
        assert {item["spec"]["pool"]["generation"] for item in found} == {generation}
        assert {item["spec"]["pool"]["resourceSliceCount"] for item in found} == {len(found)}
        assert [device["name"] for item in found for device in item["spec"]["devices"] or []] == [
            device.name for spec in desired for device in spec.devices
        ]


def _assert_sound(plan: WritePlan, before: int) -> None:
    assert plan.generation >= before
    if plan.creates or plan.deletes or len(plan.updates) > 1:
        assert plan.generation > before
