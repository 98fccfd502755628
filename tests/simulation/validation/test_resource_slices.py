"""ResourceSlice: what the real server refuses is refused, with its path and reason."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.kube.interface import PODS, RESOURCE_SLICES
from dra_driver.simulation.validation import apply_defaults, unknown_fields, validate_create, validate_update
from tests.simulation.validation.builders import DELETE, SLICE, Obj, put, seen

DEVICE = "spec.devices.0"
AT = "spec.devices[0]"
TERM: Obj = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
POLICY: Obj = {"default": "2Gi", "validRange": {"min": "1Gi", "max": "9Gi", "step": "1Gi"}}


def refused(obj: Obj) -> set[tuple[str, str]]:
    return seen(validate_create(RESOURCE_SLICES, obj))


def devices(count: int, **fields: Any) -> list[Obj]:
    return [{"name": f"gpu-{index}", **fields} for index in range(count)]


def counters(count: int) -> Obj:
    return {f"c{index}": {"value": "1"} for index in range(count)}


def test_a_good_slice_passes() -> None:
    assert refused(SLICE) == set()
    assert validate_update(RESOURCE_SLICES, SLICE, SLICE) == []
    assert unknown_fields(RESOURCE_SLICES, SLICE) == []


@pytest.mark.parametrize(
    ("path", "value", "field", "reason"),
    [
        ("metadata.name", "Upper", "metadata.name", "Invalid"),
        ("metadata.name", "", "metadata.name", "Required"),
        ("metadata.namespace", "default", "metadata.namespace", "Forbidden"),
        ("metadata.labels", {"a b": "c"}, "metadata.labels", "Invalid"),
        ("metadata.finalizers", [None], "metadata.finalizers[0]", "Invalid"),
        ("metadata.ownerReferences.0.uid", "", "metadata.ownerReferences[0].uid", "Required"),
        ("spec.driver", "", "spec.driver", "Required"),
        ("spec.driver", "under_score", "spec.driver", "Invalid"),
        ("spec.driver", "a" * 64, "spec.driver", "TooLong"),
        ("spec.pool.name", "", "spec.pool.name", "Required"),
        ("spec.pool.name", "a//b", "spec.pool.name", "Invalid"),
        ("spec.pool.name", "/".join(["a" * 60] * 5), "spec.pool.name", "TooLong"),
        ("spec.pool.resourceSliceCount", 0, "spec.pool.resourceSliceCount", "Invalid"),
        ("spec.pool.generation", -1, "spec.pool.generation", "Invalid"),
        ("spec.pool.generation", "1", "spec.pool.generation", "TypeInvalid"),
        ("spec.pool.generation", 2**63, "spec.pool.generation", "TypeInvalid"),
        ("spec.nodeName", DELETE, "spec", "Required"),
        ("spec.nodeName", "Node_0", "spec.nodeName", "Invalid"),
        ("spec.allNodes", True, "spec", "Invalid"),
        ("spec.allNodes", False, "spec.allNodes", "Invalid"),
        ("spec.perDeviceNodeSelection", False, "spec.perDeviceNodeSelection", "Invalid"),
        ("spec.devices", {}, "spec.devices", "TypeInvalid"),
        ("spec.devices", devices(129), "spec.devices", "TooMany"),
        ("spec.devices", devices(65, taints=[{"key": "a", "effect": "None"}]), "spec.devices", "TooMany"),
        ("spec.devices", devices(65, attributes={"a": {"ints": [1]}}), "spec.devices", "TooMany"),
        (
            "spec.devices",
            devices(65, consumesCounters=[{"counterSet": "a", "counters": counters(1)}]),
            "spec.devices",
            "TooMany",
        ),
        ("spec.devices", [*devices(2), *devices(1)], "spec.devices[2]", "Duplicate"),
        ("spec.sharedCounters", [], "spec", "Invalid"),
        ("spec.skipNodeOperations", ["NodePrepareResources"], "spec.skipNodeOperations", "Invalid"),
        ("spec.skipNodeOperations", ["Sing"], "spec.skipNodeOperations[0]", "NotSupported"),
        ("spec.partitionTypeAttribute", "gpu.nvidia.com/profile", "spec.partitionTypeAttribute", "Invalid"),
        ("spec.partitionTypeAttribute", "profile", "spec.partitionTypeAttribute", "Invalid"),
        (f"{DEVICE}.name", "GPU-0", f"{AT}.name", "Invalid"),
        (f"{DEVICE}.name", "g" * 64, f"{AT}.name", "Invalid"),
        (f"{DEVICE}.attributes.0bad", {"int": 1}, f"{AT}.attributes", "Invalid"),
        (f"{DEVICE}.attributes.a-b", {"int": 1}, f"{AT}.attributes", "Invalid"),
        (f"{DEVICE}.attributes.{'a' * 33}", {"int": 1}, f"{AT}.attributes", "TooLong"),
        (f"{DEVICE}.attributes.a/b/c", {"int": 1}, f"{AT}.attributes", "Invalid"),
        (f"{DEVICE}.attributes./b", {"int": 1}, f"{AT}.attributes", "Invalid"),
        (f"{DEVICE}.attributes.x", {}, f"{AT}.attributes[x]", "Invalid"),
        (f"{DEVICE}.attributes.x", None, f"{AT}.attributes[x]", "Invalid"),
        (f"{DEVICE}.attributes.x", {"int": 1, "string": "1"}, f"{AT}.attributes[x]", "Invalid"),
        (f"{DEVICE}.attributes.x", {"int": "1"}, f"{AT}.attributes[x].int", "TypeInvalid"),
        (f"{DEVICE}.attributes.x", {"int": True}, f"{AT}.attributes[x].int", "TypeInvalid"),
        (f"{DEVICE}.attributes.x", {"string": "é" * 33}, f"{AT}.attributes[x].string", "TooLong"),
        (f"{DEVICE}.attributes.x", {"version": "535.104.05"}, f"{AT}.attributes[x].version", "Invalid"),
        (f"{DEVICE}.attributes.x", {"version": "12.4"}, f"{AT}.attributes[x].version", "Invalid"),
        (f"{DEVICE}.attributes.x", {"version": "v1.2.3"}, f"{AT}.attributes[x].version", "Invalid"),
        (f"{DEVICE}.attributes.x", {"strings": []}, f"{AT}.attributes[x].strings", "Invalid"),
        (f"{DEVICE}.attributes.x", {"versions": ["1.2.3", "1"]}, f"{AT}.attributes[x].versions[1]", "Invalid"),
        (f"{DEVICE}.attributes", {f"a{n}": {"int": n} for n in range(32)}, AT, "Invalid"),
        (f"{DEVICE}.attributes.x", {"ints": list(range(47))}, AT, "Invalid"),
        (f"{DEVICE}.capacity.memory.value", "80GB", f"{AT}.capacity[memory].value", "Invalid"),
        (f"{DEVICE}.capacity.memory.requestPolicy", POLICY, f"{AT}.capacity[memory].requestPolicy", "Forbidden"),
        (f"{DEVICE}.taints", [{"key": "a", "effect": "Never"}], f"{AT}.taints[0].effect", "NotSupported"),
        (f"{DEVICE}.taints", [{"key": "a"}], f"{AT}.taints[0].effect", "Required"),
        (f"{DEVICE}.taints", [{"effect": "None"}], f"{AT}.taints[0].key", "Invalid"),
        (
            f"{DEVICE}.taints",
            [{"key": "a", "effect": "None", "value": "a b"}],
            f"{AT}.taints[0].value",
            "Invalid",
        ),
        (
            f"{DEVICE}.taints",
            [{"key": "a", "effect": "None", "timeAdded": "today"}],
            f"{AT}.taints[0].timeAdded",
            "TypeInvalid",
        ),
        (f"{DEVICE}.taints", [{"key": f"a{n}", "effect": "None"} for n in range(17)], f"{AT}.taints", "TooMany"),
        (f"{DEVICE}.consumesCounters", [{"counters": counters(1)}], f"{AT}.consumesCounters[0].counterSet", "Required"),
        (f"{DEVICE}.consumesCounters", [{"counterSet": "a"}], f"{AT}.consumesCounters[0].counters", "Required"),
        (
            f"{DEVICE}.consumesCounters",
            [{"counterSet": "a", "counters": counters(33)}],
            f"{AT}.consumesCounters[0].counters",
            "TooMany",
        ),
        (
            f"{DEVICE}.consumesCounters",
            [{"counterSet": "a", "counters": {"a_b": {"value": "1"}}}],
            f"{AT}.consumesCounters[0].counters",
            "Invalid",
        ),
        (
            f"{DEVICE}.consumesCounters",
            [{"counterSet": "a", "counters": counters(1)}] * 2,
            f"{AT}.consumesCounters[1]",
            "Duplicate",
        ),
        (
            f"{DEVICE}.consumesCounters",
            [{"counterSet": f"a{n}", "counters": counters(1)} for n in range(3)],
            f"{AT}.consumesCounters",
            "TooMany",
        ),
        (f"{DEVICE}.nodeName", "node-0", AT, "Invalid"),
        (f"{DEVICE}.bindingConditions", ["a"], f"{AT}.bindingFailureConditions", "Invalid"),
        (f"{DEVICE}.bindingFailureConditions", ["a"], f"{AT}.bindingConditions", "Invalid"),
        (
            f"{DEVICE}.nodeAllocatableResources",
            {"gpus": {"overhead": {"perPod": "1"}}},
            f"{AT}.nodeAllocatableResources[gpus]",
            "Invalid",
        ),
        (
            f"{DEVICE}.nodeAllocatableResources",
            {"memory": {}},
            f"{AT}.nodeAllocatableResources[memory]",
            "Required",
        ),
        (
            f"{DEVICE}.nodeAllocatableResources",
            {"memory": {"mapping": {"capacityKey": "nope", "capacityMultiplier": "1"}}},
            f"{AT}.nodeAllocatableResources[memory].mapping.capacityKey",
            "NotFound",
        ),
        (
            f"{DEVICE}.nodeAllocatableResources",
            {"memory": {"overhead": {"perPod": "-1"}}},
            f"{AT}.nodeAllocatableResources[memory].overhead.perPod",
            "Invalid",
        ),
    ],
)
def test_refusals(path: str, value: object, field: str, reason: str) -> None:
    assert (field, reason) in refused(put(SLICE, path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", DELETE),  # generateName below
        ("spec.driver", "GPU.Example.com"),
        ("spec.pool.name", "region/zone/node-0"),
        ("spec.pool.generation", 0),
        ("spec.devices", None),
        ("spec.devices", []),
        ("spec.devices", devices(128)),
        ("spec.devices", devices(64, taints=[{"key": "a.b/c", "value": "x", "effect": "NoExecute"}])),
        ("spec.skipNodeOperations", ["*"]),
        (f"{DEVICE}.attributes.x", {"version": "1.2.3-rc.1+build.5"}),
        (f"{DEVICE}.attributes.x", {"string": ""}),
        (f"{DEVICE}.attributes.x", {"bool": False, "int": None}),
        (f"{DEVICE}.attributes.x", {"strings": ["a", "b"]}),
        (f"{DEVICE}.attributes", {f"a{n}": {"int": n} for n in range(31)}),
        (f"{DEVICE}.capacity.memory.value", 85899345920),
        (f"{DEVICE}.capacity.memory.value", None),
        (f"{DEVICE}.bindingConditions", None),
        (
            f"{DEVICE}.nodeAllocatableResources",
            {
                "memory": {"mapping": {"capacityKey": "memory", "capacityMultiplier": "1"}},
                "cpu": {"overhead": {"perPod": "1"}},
                "hugepages-2Mi": {"mapping": {"deviceMultiplier": "1"}},
            },
        ),
    ],
)
def test_what_the_server_takes(path: str, value: object) -> None:
    spoiled = put(SLICE, path, value)
    spoiled["metadata"]["generateName"] = "00000-gpu.nvidia.com-node-0-"
    assert refused(spoiled) == set()


def test_wording_is_that_of_the_server() -> None:
    """As recorded from a 1.35 server for counters beside devices."""
    spoiled = put(SLICE, "spec.sharedCounters", [{"name": "gpu-0", "counters": counters(1)}])
    (cause,) = validate_create(RESOURCE_SLICES, spoiled)
    assert (cause.field, cause.reason) == ("spec", "FieldValueInvalid")
    assert cause.message == 'Invalid value: "": only one of `sharedCounters` or `devices` is allowed'
    (cause,) = validate_create(RESOURCE_SLICES, put(SLICE, "spec.devices", devices(129)))
    assert cause.message == "Too many: 129: must have at most 128 items"


class TestCountersOnly:
    SLICE = put(
        put(SLICE, "spec.devices", DELETE),
        "spec.sharedCounters",
        [{"name": f"gpu-{n}", "counters": counters(32)} for n in range(8)],
    )

    def test_passes(self) -> None:
        assert refused(self.SLICE) == set()

    @pytest.mark.parametrize(
        ("value", "field", "reason"),
        [
            ([{"name": f"gpu-{n}", "counters": counters(1)} for n in range(9)], "spec.sharedCounters", "TooMany"),
            ([{"name": "a", "counters": counters(1)}] * 2, "spec.sharedCounters[1]", "Duplicate"),
            ([{"counters": counters(1)}], "spec.sharedCounters[0].name", "Required"),
            ([{"name": "a_b", "counters": counters(1)}], "spec.sharedCounters[0].name", "Invalid"),
            ([{"name": "a", "counters": {}}], "spec.sharedCounters[0].counters", "Required"),
            ([{"name": "a", "counters": counters(33)}], "spec.sharedCounters[0].counters", "TooMany"),
            ([None], "spec.sharedCounters[0].name", "Required"),
        ],
    )
    def test_refusals(self, value: object, field: str, reason: str) -> None:
        assert (field, reason) in refused(put(self.SLICE, "spec.sharedCounters", value))


class TestRequestPolicies:
    """KEP-5075: the policy of a 10Gi capacity."""

    @staticmethod
    def refused(policy: object) -> set[tuple[str, str]]:
        device = {
            "name": "gpu-0",
            "allowMultipleAllocations": True,
            "capacity": {"memory": {"value": "10Gi", "requestPolicy": policy}},
        }
        prefix = f"{AT}.capacity[memory].requestPolicy"
        return {(field.removeprefix(prefix), reason) for field, reason in refused(put(SLICE, "spec.devices", [device]))}

    @pytest.mark.parametrize(
        "policy",
        [
            None,
            {},
            {"default": "1Gi"},
            POLICY,
            {"default": "0", "validRange": {"min": "0"}},
            {"default": "0", "validRange": {"min": "0", "max": "10Gi", "step": "1Mi"}},
            {"default": "1Gi", "validValues": ["1Gi", "2Gi", "10Gi"]},
        ],
    )
    def test_good_ones(self, policy: object) -> None:
        assert self.refused(policy) == set()

    @pytest.mark.parametrize(
        ("policy", "field", "reason"),
        [
            ({"validValues": ["1Gi"]}, ".default", "Required"),
            ({"validRange": {"min": "0"}}, ".default", "Required"),
            ({"default": "1Gi", "validValues": ["1Gi"], "validRange": {"min": "0"}}, "", "Forbidden"),
            ({"default": "1Gi", "validValues": ["2Gi", "1Gi"]}, ".validValues[1]", "Invalid"),
            ({"default": "1Gi", "validValues": ["1Gi", "1024Mi"]}, ".validValues[1]", "Duplicate"),
            ({"default": "1Gi", "validValues": ["1Gi", "11Gi"]}, ".validValues[1]", "Invalid"),
            ({"default": "3Gi", "validValues": ["1Gi", None]}, ".validValues", "Invalid"),
            ({"default": "1", "validValues": [str(n) for n in range(1, 12)]}, ".validValues", "TooMany"),
            ({"default": "1Gi", "validRange": {"max": "2Gi"}}, ".validRange.min", "Required"),
            ({"default": "1Gi", "validRange": {"min": "11Gi"}}, ".validRange.min", "Invalid"),
            ({"default": "1Gi", "validRange": {"min": "2Gi"}}, ".validRange.default", "Invalid"),
            ({"default": "3Gi", "validRange": {"min": "1Gi", "max": "2Gi"}}, ".validRange.default", "Invalid"),
            ({"default": "1Gi", "validRange": {"min": "1Gi", "max": "11Gi"}}, ".validRange.max", "Invalid"),
            ({"default": "1Gi", "validRange": {"min": "3Gi", "max": "2Gi"}}, ".validRange.max", "Invalid"),
            ({"default": "1Gi", "validRange": {"min": "1Gi", "step": "0"}}, ".validRange.step", "Invalid"),
            ({"default": "1Gi", "validRange": {"min": "1Gi", "step": "10Gi"}}, ".validRange.step", "Invalid"),
            ({"default": "2Gi", "validRange": {"min": "1Gi", "step": "700Mi"}}, ".validRange.step", "Invalid"),
            (
                {"default": "1Gi", "validRange": {"min": "1Gi", "max": "4Gi", "step": "2Gi"}},
                ".validRange.step",
                "Invalid",
            ),
            ({"default": "1Gi", "validRange": {"min": "500m", "step": "1"}}, ".validRange.min", "Invalid"),
            ({"default": "-1", "validRange": {"min": "-1", "step": "1"}}, ".validRange.min", "Invalid"),
        ],
    )
    def test_bad_ones(self, policy: object, field: str, reason: str) -> None:
        assert (field, reason) in self.refused(policy)


class TestNodes:
    BARE = put(SLICE, "spec.nodeName", DELETE)

    def test_other_ways_to_name_nodes(self) -> None:
        assert refused(put(self.BARE, "spec.allNodes", True)) == set()
        assert refused(put(self.BARE, "spec.nodeSelector", {"nodeSelectorTerms": [TERM]})) == set()
        per_device = put(put(self.BARE, "spec.perDeviceNodeSelection", True), f"{DEVICE}.nodeName", "node-0")
        assert refused(per_device) == set()

    @pytest.mark.parametrize(
        ("selector", "field", "reason"),
        [
            ({}, "spec.nodeSelector.nodeSelectorTerms", "Required"),
            ({"nodeSelectorTerms": [TERM, TERM]}, "spec.nodeSelector.nodeSelectorTerms", "Invalid"),
            *(
                (
                    {"nodeSelectorTerms": [{kind: [requirement]}]},
                    f"spec.nodeSelector.nodeSelectorTerms[0].{kind}[0].{field}",
                    reason,
                )
                for kind, requirement, field, reason in [
                    ("matchExpressions", {"key": "a", "operator": "In"}, "values", "Required"),
                    ("matchExpressions", {"key": "a", "operator": "Exists", "values": ["a"]}, "values", "Forbidden"),
                    ("matchExpressions", {"key": "a", "operator": "Gt", "values": ["1", "2"]}, "values", "Required"),
                    ("matchExpressions", {"key": "a", "operator": "Like"}, "operator", "NotSupported"),
                    ("matchExpressions", {"key": "", "operator": "Exists"}, "key", "Invalid"),
                    ("matchFields", {"key": "metadata.name", "operator": "Exists"}, "operator", "NotSupported"),
                    ("matchFields", {"key": "metadata.name", "operator": "In"}, "values", "Required"),
                    ("matchFields", {"key": "spec.x", "operator": "In", "values": ["a"]}, "key", "Invalid"),
                ]
            ),
        ],
    )
    def test_bad_selectors(self, selector: object, field: str, reason: str) -> None:
        assert (field, reason) in refused(put(self.BARE, "spec.nodeSelector", selector))

    @pytest.mark.parametrize(
        ("fields", "field", "reason"),
        [
            ({}, AT, "Required"),
            ({"nodeName": "", "allNodes": True}, f"{AT}.nodeName", "Invalid"),
            ({"nodeName": "a", "allNodes": True}, AT, "Invalid"),
            ({"allNodes": False}, f"{AT}.allNodes", "Invalid"),
            ({"nodeSelector": {}}, f"{AT}.nodeSelector.nodeSelectorTerms", "Required"),
        ],
    )
    def test_bad_device_nodes(self, fields: Obj, field: str, reason: str) -> None:
        spoiled = put(self.BARE, "spec.perDeviceNodeSelection", True)
        spoiled["spec"]["devices"][0] |= fields
        assert (field, reason) in refused(spoiled)


def test_partition_type_names_a_string_of_every_consuming_device() -> None:
    consuming = {"name": "a", "consumesCounters": [{"counterSet": "a", "counters": counters(1)}]}
    spoiled = put(SLICE, "spec.partitionTypeAttribute", "gpu.nvidia.com/profile")
    path = "spec.devices[0].attributes[gpu.nvidia.com/profile]"
    for attributes, expected in [
        ({}, {(path, "Required")}),
        ({"profile": {"int": 1}}, {(path, "Invalid")}),
        ({"profile": {"string": "1g.10gb"}}, set()),
        ({"gpu.nvidia.com/profile": {"string": "1g.10gb"}}, set()),
    ]:
        assert refused(put(spoiled, "spec.devices", [{**consuming, "attributes": attributes}])) == expected


@pytest.mark.parametrize(
    ("path", "field"),
    [("spec.driver", "spec.driver"), ("spec.pool.name", "spec.pool.name"), ("spec.nodeName", "spec.nodeName")],
)
def test_immutable_fields(path: str, field: str) -> None:
    assert seen(validate_update(RESOURCE_SLICES, put(SLICE, path, "other"), SLICE)) == {(field, "Invalid")}


def test_an_update_may_leave_identity_out_but_not_change_it() -> None:
    old = put(SLICE, "metadata.uid", "one")
    assert validate_update(RESOURCE_SLICES, SLICE, old) == []
    assert seen(validate_update(RESOURCE_SLICES, put(SLICE, "metadata.uid", "two"), old)) == {
        ("metadata.uid", "Invalid")
    }


def test_an_update_is_judged_like_a_new_slice() -> None:
    assert ("spec.devices", "TooMany") in seen(
        validate_update(RESOURCE_SLICES, put(SLICE, "spec.devices", devices(129)), SLICE)
    )


def test_two_controllers_are_refused() -> None:
    owners = SLICE["metadata"]["ownerReferences"] * 2
    assert refused(put(SLICE, "metadata.ownerReferences", owners)) == {("metadata.ownerReferences", "Invalid")}


def test_unknown_fields_are_named_with_their_path() -> None:
    spoiled = put(put(SLICE, f"{DEVICE}.basic", {}), f"{DEVICE}.attributes.type.strng", "x")
    spoiled["sepc"] = {}
    assert sorted(unknown_fields(RESOURCE_SLICES, spoiled)) == [
        "sepc",
        "spec.devices[0].attributes[type].strng",
        "spec.devices[0].basic",
    ]


def test_the_time_of_a_taint_is_filled_in() -> None:
    obj = put(
        SLICE, f"{DEVICE}.taints", [{"key": "a", "effect": "None"}, {"key": "b", "effect": "None", "timeAdded": "x"}]
    )
    apply_defaults(RESOURCE_SLICES, obj, now="2026-11-23T08:03:30Z")
    assert [taint["timeAdded"] for taint in obj["spec"]["devices"][0]["taints"]] == ["2026-11-23T08:03:30Z", "x"]


def test_other_resources_are_not_judged() -> None:
    assert validate_create(PODS, {}) == []
    assert validate_update(PODS, {}, {}) == []
    assert unknown_fields(PODS, {"x": 1}) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PATHS = [
    "metadata", "metadata.name", "metadata.labels", "metadata.ownerReferences", "spec", "spec.pool", "spec.nodeSelector",
    "spec.devices", "spec.devices.0", "spec.sharedCounters", "spec.skipNodeOperations", f"{DEVICE}.attributes",
    f"{DEVICE}.attributes.type", f"{DEVICE}.capacity", f"{DEVICE}.capacity.memory", f"{DEVICE}.taints",
    f"{DEVICE}.consumesCounters", f"{DEVICE}.nodeAllocatableResources", f"{DEVICE}.bindingConditions",
]  # fmt: skip


@given(st.sampled_from(PATHS), json_values)
def test_no_json_value_anywhere_makes_it_crash(path: str, value: object) -> None:
    spoiled = put(SLICE, path, value)
    validate_create(RESOURCE_SLICES, spoiled)
    validate_update(RESOURCE_SLICES, spoiled, SLICE)
    apply_defaults(RESOURCE_SLICES, copy.deepcopy(spoiled), now="2026-11-23T08:03:30Z")
