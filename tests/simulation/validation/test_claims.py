"""ResourceClaim, ResourceClaimTemplate and DeviceClass: the server's answers, path by path."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.kube.interface import DEVICE_CLASSES, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS
from dra_driver.simulation.validation import apply_defaults, unknown_fields, validate_create, validate_update
from tests.simulation.validation.builders import ALLOCATION, CLAIM, CLASS, DELETE, Obj, allocated, put, seen, template
from tests.simulation.validation.test_resource_slices import json_values

REQUESTS = "spec.devices.requests"
EXACTLY = f"{REQUESTS}.0.exactly"
AT = f"{REQUESTS}[0].exactly"
ADMIN = {"resource.kubernetes.io/admin-access": "true"}


def refused(obj: Obj) -> set[tuple[str, str]]:
    return seen(validate_create(RESOURCE_CLAIMS, obj))


def refused_status(obj: Obj, old: Obj | None = None, labels: dict[str, str] | None = None) -> set[tuple[str, str]]:
    return seen(validate_update(RESOURCE_CLAIMS, obj, old or CLAIM, subresource="status", namespace_labels=labels))


def requests(count: int) -> list[Obj]:
    return [{"name": f"r{n}", "exactly": CLAIM["spec"]["devices"]["requests"][0]["exactly"]} for n in range(count)]


def alternatives(count: int) -> list[Obj]:
    return [{"name": f"a{n}", "deviceClassName": "c", "allocationMode": "All"} for n in range(count)]


def test_good_objects_pass() -> None:
    for resource, obj in [
        (RESOURCE_CLAIMS, CLAIM),
        (RESOURCE_CLAIM_TEMPLATES, template()),
        (DEVICE_CLASSES, CLASS),
    ]:
        assert validate_create(resource, obj) == []
        assert validate_update(resource, obj, obj) == []
        assert unknown_fields(resource, obj) == []


@pytest.mark.parametrize(
    ("path", "value", "field", "reason"),
    [
        ("metadata.namespace", DELETE, "metadata.namespace", "Required"),
        (REQUESTS, requests(33), REQUESTS, "TooMany"),
        (REQUESTS, [*requests(1), *requests(1)], f"{REQUESTS}[1]", "Duplicate"),
        (f"{REQUESTS}.0.name", "Gpu", f"{REQUESTS}[0].name", "Invalid"),
        (f"{REQUESTS}.0.name", "", f"{REQUESTS}[0].name", "Invalid"),
        (EXACTLY, None, f"{REQUESTS}[0]", "Required"),
        (f"{REQUESTS}.1.exactly", {}, f"{REQUESTS}[1]", "Invalid"),
        (f"{REQUESTS}.1.firstAvailable", alternatives(9), f"{REQUESTS}[1].firstAvailable", "TooMany"),
        (f"{REQUESTS}.1.firstAvailable", alternatives(1) * 2, f"{REQUESTS}[1].firstAvailable[1]", "Duplicate"),
        (f"{REQUESTS}.1.firstAvailable.0.name", "", f"{REQUESTS}[1].firstAvailable[0].name", "Invalid"),
        (
            f"{REQUESTS}.1.firstAvailable.0.deviceClassName",
            "",
            f"{REQUESTS}[1].firstAvailable[0].deviceClassName",
            "Required",
        ),
        (f"{EXACTLY}.deviceClassName", "", f"{AT}.deviceClassName", "Required"),
        (f"{EXACTLY}.deviceClassName", "a_b", f"{AT}.deviceClassName", "Invalid"),
        (f"{EXACTLY}.allocationMode", "Some", f"{AT}.allocationMode", "NotSupported"),
        (f"{EXACTLY}.allocationMode", "All", f"{AT}.count", "Invalid"),
        (f"{EXACTLY}.count", 0, f"{AT}.count", "Invalid"),
        (f"{EXACTLY}.count", -1, f"{AT}.count", "Invalid"),
        (f"{EXACTLY}.count", "2", f"{AT}.count", "TypeInvalid"),
        (f"{EXACTLY}.adminAccess", "yes", f"{AT}.adminAccess", "TypeInvalid"),
        (f"{EXACTLY}.adminAccess", True, f"{REQUESTS}[0].adminAccess", "Forbidden"),
        (f"{EXACTLY}.selectors", [{}], f"{AT}.selectors[0].cel", "Required"),
        (f"{EXACTLY}.selectors", [{"cel": {}}], f"{AT}.selectors[0].cel.expression", "Invalid"),
        (
            f"{EXACTLY}.selectors",
            [{"cel": {"expression": "x" * 10241}}],
            f"{AT}.selectors[0].cel.expression",
            "TooLong",
        ),
        (f"{EXACTLY}.selectors", [{"cel": {"expression": "x"}}] * 33, f"{AT}.selectors", "TooMany"),
        (f"{EXACTLY}.tolerations", [{"key": "a"}], f"{AT}.tolerations[0].operator", "Required"),
        (f"{EXACTLY}.tolerations", [{"operator": "In"}], f"{AT}.tolerations[0].operator", "NotSupported"),
        (f"{EXACTLY}.tolerations", [{"operator": "Exists", "value": "v"}], f"{AT}.tolerations[0].value", "Invalid"),
        (f"{EXACTLY}.tolerations", [{"operator": "Equal", "value": "a b"}], f"{AT}.tolerations[0].value", "Invalid"),
        (
            f"{EXACTLY}.tolerations",
            [{"operator": "Exists", "effect": "X"}],
            f"{AT}.tolerations[0].effect",
            "NotSupported",
        ),
        (f"{EXACTLY}.tolerations", [{"operator": "Exists", "key": "/"}], f"{AT}.tolerations[0].key", "Invalid"),
        (f"{EXACTLY}.capacity", {"requests": {"memory": "10GB"}}, f"{AT}.capacity.requests[memory]", "Invalid"),
        (f"{EXACTLY}.derivedAttributes", [{"name": "a/b"}], f"{AT}.derivedAttributes[0].expression", "Required"),
        (
            f"{EXACTLY}.derivedAttributes",
            [{"name": "a/b", "expression": "1"}],
            f"{AT}.derivedAttributes[0].name",
            "Invalid",
        ),
        (f"{EXACTLY}.derivedAttributes", [{}] * 33, f"{AT}.derivedAttributes", "TooMany"),
        ("spec.devices.constraints.0.requests.0", "nope", "spec.devices.constraints[0].requests[0]", "Invalid"),
        ("spec.devices.constraints.0.requests.1", "any/nope", "spec.devices.constraints[0].requests[1]", "Invalid"),
        ("spec.devices.constraints.0.requests.1", "a/b/c", "spec.devices.constraints[0].requests[1]", "Invalid"),
        ("spec.devices.constraints.0.requests.1", "gpu", "spec.devices.constraints[0].requests[1]", "Duplicate"),
        ("spec.devices.constraints.0.matchAttribute", "uuid", "spec.devices.constraints[0].matchAttribute", "Invalid"),
        ("spec.devices.constraints.0.matchAttribute", None, "spec.devices.constraints[0]", "Required"),
        ("spec.devices.constraints", [{"matchAttribute": "a/b"}] * 33, "spec.devices.constraints", "TooMany"),
        ("spec.devices.config.0.opaque", None, "spec.devices.config[0].opaque", "Required"),
        ("spec.devices.config.0.opaque.driver", "", "spec.devices.config[0].opaque.driver", "Required"),
        ("spec.devices.config.0.opaque.parameters", None, "spec.devices.config[0].opaque.parameters", "Required"),
        ("spec.devices.config.0.opaque.parameters", [], "spec.devices.config[0].opaque.parameters", "Invalid"),
        (
            "spec.devices.config.0.opaque.parameters",
            {"x": "y" * 10240},
            "spec.devices.config[0].opaque.parameters",
            "TooLong",
        ),
        ("spec.devices.config.0.requests", ["nope"], "spec.devices.config[0].requests[0]", "Invalid"),
        ("spec.devices.config", [CLAIM["spec"]["devices"]["config"][0]] * 33, "spec.devices.config", "TooMany"),
    ],
)
def test_refused_claims(path: str, value: object, field: str, reason: str) -> None:
    assert (field, reason) in refused(put(CLAIM, path, value))


def test_templates_are_judged_below_spec_spec() -> None:
    spoiled = put(template(), f"spec.{EXACTLY}.count", 0)
    assert seen(validate_create(RESOURCE_CLAIM_TEMPLATES, spoiled)) == {(f"spec.{AT}.count", "Invalid")}
    labelled = put(template(), "spec.metadata.labels", {"/": "x"})
    assert ("spec.metadata.labels", "Invalid") in seen(validate_create(RESOURCE_CLAIM_TEMPLATES, labelled))


def test_admin_access_needs_the_label_of_the_namespace() -> None:
    claim = put(CLAIM, f"{EXACTLY}.adminAccess", True)
    (cause,) = validate_create(RESOURCE_CLAIMS, claim, namespace_labels={"a": "b"})
    assert cause.message == (
        "Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label "
        "on the containing namespace"
    )
    assert validate_create(RESOURCE_CLAIMS, claim, namespace_labels=ADMIN) == []
    spoiled = put(template(), f"spec.{EXACTLY}.adminAccess", True)
    assert seen(validate_create(RESOURCE_CLAIM_TEMPLATES, spoiled)) == {(f"{REQUESTS}[0].adminAccess", "Forbidden")}
    assert validate_create(RESOURCE_CLAIM_TEMPLATES, spoiled, namespace_labels=ADMIN) == []
    assert validate_create(RESOURCE_CLAIMS, put(CLAIM, f"{EXACTLY}.adminAccess", False)) == []


def test_expressions_are_compiled_by_whoever_can() -> None:
    def check(expression: str) -> str | None:
        return "no such thing" if expression == "true" else None

    (cause,) = validate_create(RESOURCE_CLAIMS, CLAIM, check_expression=check)
    assert cause.field == f"{REQUESTS}[1].firstAvailable[1].selectors[0].cel.expression"
    assert cause.message == 'Invalid value: "true": compilation failed: no such thing'
    stored = put(CLASS, "spec.selectors", [{"cel": {"expression": "true"}}])
    assert validate_create(DEVICE_CLASSES, stored, check_expression=check)
    assert validate_update(DEVICE_CLASSES, stored, stored, check_expression=check) == []


def test_specs_are_immutable_but_not_their_spelling() -> None:
    changed = put(CLAIM, f"{EXACTLY}.count", 2)
    assert seen(validate_update(RESOURCE_CLAIMS, changed, CLAIM)) == {("spec", "Invalid")}
    assert seen(validate_update(RESOURCE_CLAIM_TEMPLATES, put(template(), "spec.metadata", {}), template())) == {
        ("spec", "Invalid")
    }
    old = put(CLAIM, f"{EXACTLY}.capacity", {"requests": {"memory": "1Gi"}})
    new = put(old, f"{EXACTLY}.capacity.requests.memory", "1024Mi")
    new = put(new, f"{EXACTLY}.tolerations", [])
    new = put(new, "metadata.labels", {"added": "later"})
    assert validate_update(RESOURCE_CLAIMS, new, old) == []


@pytest.mark.parametrize(
    ("path", "value", "field", "reason"),
    [
        ("metadata.name", "a_b", "metadata.name", "Invalid"),
        ("metadata.namespace", "default", "metadata.namespace", "Forbidden"),
        ("spec.selectors.0.cel", None, "spec.selectors[0].cel", "Required"),
        ("spec.config.0.opaque", None, "spec.config[0].opaque", "Required"),
        ("spec.extendedResourceName", "cpu", "spec.extendedResourceName", "Invalid"),
        ("spec.extendedResourceName", "", "spec.extendedResourceName", "Invalid"),
        ("spec.extendedResourceName", "kubernetes.io/gpu", "spec.extendedResourceName", "Invalid"),
        ("spec.extendedResourceName", "requests.nvidia.com/gpu", "spec.extendedResourceName", "Invalid"),
        ("spec.extendedResourceName", "nvidia.com/g pu", "spec.extendedResourceName", "Invalid"),
    ],
)
def test_refused_classes(path: str, value: object, field: str, reason: str) -> None:
    assert (field, reason) in seen(validate_create(DEVICE_CLASSES, put(CLASS, path, value)))


class TestStatus:
    """The status of a claim: allocation once, consumers and device statuses only with it."""

    RESULTS = "status.allocation.devices.results"
    CONFIG = "status.allocation.devices.config"

    def test_an_allocation_with_consumers_passes(self) -> None:
        assert refused_status(allocated()) == set()
        assert unknown_fields(RESOURCE_CLAIMS, allocated()) == []

    def test_an_allocation_is_cleared_but_not_changed(self) -> None:
        claim = allocated()
        assert refused_status(CLAIM, claim) == set()
        assert refused_status(claim, claim) == set()
        respelled = put(claim, f"{self.RESULTS}.1.consumedCapacity.memory", "10240Mi")
        assert refused_status(respelled, claim) == set()
        changed = put(claim, f"{self.RESULTS}.0.device", "gpu-3")
        assert refused_status(changed, claim) == {("status.allocation", "Invalid")}

    @pytest.mark.parametrize(
        ("path", "value", "field", "reason"),
        [
            ("status.allocation", None, "status.reservedFor", "Forbidden"),
            (
                "status.reservedFor",
                [{"resource": "pods", "name": "p", "uid": str(n)} for n in range(257)],
                "status.reservedFor",
                "TooMany",
            ),
            (
                "status.reservedFor",
                [{"resource": "pods", "name": "p", "uid": "1"}] * 2,
                "status.reservedFor[1]",
                "Duplicate",
            ),
            ("status.reservedFor", [{"name": "p", "uid": "1"}], "status.reservedFor[0].resource", "Required"),
            (RESULTS, ALLOCATION["devices"]["results"] * 17, RESULTS, "TooMany"),
            (f"{RESULTS}.0.request", "nope", f"{RESULTS}[0].request", "Invalid"),
            (f"{RESULTS}.0.request", "any/nope", f"{RESULTS}[0].request", "Invalid"),
            (f"{RESULTS}.0.driver", "", f"{RESULTS}[0].driver", "Required"),
            (f"{RESULTS}.0.pool", "", f"{RESULTS}[0].pool", "Required"),
            (f"{RESULTS}.0.device", "", f"{RESULTS}[0].device", "Invalid"),
            (f"{RESULTS}.0.shareID", "1", f"{RESULTS}[0].shareID", "Invalid"),
            (f"{RESULTS}.0.adminAccess", True, f"{RESULTS}[0].adminAccess", "Forbidden"),
            (f"{RESULTS}.0.tolerations", [{"key": "a"}], f"{RESULTS}[0].tolerations[0].operator", "Required"),
            (f"{RESULTS}.0.bindingConditions", ["a"], f"{RESULTS}[0].bindingFailureConditions", "Invalid"),
            (f"{CONFIG}", ALLOCATION["devices"]["config"] * 33, CONFIG, "TooMany"),
            (f"{CONFIG}.0.source", "", f"{CONFIG}[0].source", "Required"),
            (f"{CONFIG}.0.source", "FromHere", f"{CONFIG}[0].source", "NotSupported"),
            (f"{CONFIG}.1.requests", ["nope"], f"{CONFIG}[1].requests[0]", "Invalid"),
            (
                "status.allocation.nodeSelector",
                {},
                "status.allocation.nodeSelector.nodeSelectorTerms",
                "Required",
            ),
            (
                "status.allocation.allocationTimestamp",
                "yesterday",
                "status.allocation.allocationTimestamp",
                "TypeInvalid",
            ),
        ],
    )
    def test_refused_statuses(self, path: str, value: object, field: str, reason: str) -> None:
        assert (field, reason) in refused_status(put(allocated(), path, value))

    def test_admin_access_is_granted_in_labelled_namespaces(self) -> None:
        claim = put(allocated(), f"{self.RESULTS}.0.adminAccess", True)
        assert refused_status(claim, labels=ADMIN) == set()
        assert refused_status(claim, claim) == set(), "what was granted stays"

    def test_no_consumer_joins_a_claim_that_is_being_deleted(self) -> None:
        old = put(allocated(), "metadata.deletionTimestamp", "2026-11-23T08:03:30Z")
        joined = copy.deepcopy(old)
        joined["status"]["reservedFor"].append({"resource": "pods", "name": "late", "uid": "late"})
        assert refused_status(joined, old) == {("status.reservedFor", "Forbidden")}
        assert refused_status(put(old, "status.reservedFor", []), old) == set()

    DEVICE: Obj = {  # noqa: RUF012 - copied before it is changed
        "driver": "gpu.nvidia.com",
        "pool": "node-0",
        "device": "gpu-0",
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Prepared", "lastTransitionTime": "2026-11-23T08:03:30Z"}
        ],
        "data": {"a": 1},
        "networkData": {"interfaceName": "eth0", "ips": ["10.0.0.1/24", "2001:db8::1/64"]},
    }

    @pytest.mark.parametrize(
        ("path", "value", "field", "reason"),
        [
            ("device", "gpu-9", "", "Invalid"),
            ("shareID", "a6f2f1e3-0a1b-4c3d-8e9f-001122334455", "", "Invalid"),
            ("data", [], ".data", "Invalid"),
            ("data", {"x": "y" * 10240}, ".data", "TooLong"),
            ("conditions.0.status", "Yes", ".conditions[0].status", "NotSupported"),
            ("conditions.0.type", "", ".conditions[0].type", "Required"),
            ("conditions.0.reason", "", ".conditions[0].reason", "Required"),
            ("conditions.0.reason", "not a word", ".conditions[0].reason", "Invalid"),
            ("conditions.0.message", "m" * 32769, ".conditions[0].message", "TooLong"),
            ("conditions.0.lastTransitionTime", None, ".conditions[0].lastTransitionTime", "Required"),
            ("conditions", [DEVICE["conditions"][0]] * 2, ".conditions[1]", "Duplicate"),
            ("conditions", [DEVICE["conditions"][0]] * 9, ".conditions", "TooMany"),
            ("networkData.ips", ["10.0.0.1"], ".networkData.ips[0]", "Invalid"),
            ("networkData.ips", ["nope"], ".networkData.ips[0]", "Invalid"),
            ("networkData.ips", [f"10.0.0.{n}/24" for n in range(17)], ".networkData.ips", "TooMany"),
            ("networkData.interfaceName", "e" * 257, ".networkData.interfaceName", "TooLong"),
        ],
    )
    def test_refused_device_statuses(self, path: str, value: object, field: str, reason: str) -> None:
        claim = put(allocated(), "status.devices", [copy.deepcopy(self.DEVICE)])
        assert refused_status(claim) == set()
        spoiled = put(claim, f"status.devices.0.{path}", value)
        assert (f"status.devices[0]{field}", reason) in refused_status(spoiled)

    def test_one_status_for_a_device(self) -> None:
        claim = put(allocated(), "status.devices", [self.DEVICE, self.DEVICE])
        assert refused_status(claim) == {("status.devices[1]", "Duplicate")}


def test_defaults_of_requests_and_tolerations() -> None:
    claim = put(CLAIM, REQUESTS, [
        {"name": "a", "exactly": {"deviceClassName": "c", "tolerations": [{"key": "k"}]}},
        {"name": "b", "exactly": {"deviceClassName": "c", "allocationMode": "All"}},
        {"name": "c", "firstAvailable": [{"name": "d", "deviceClassName": "c"}, None]},
        None,
    ])  # fmt: skip
    as_template = put(template(), "spec.spec", copy.deepcopy(claim["spec"]))
    apply_defaults(RESOURCE_CLAIMS, claim, now="")
    first, second, third, _ = claim["spec"]["devices"]["requests"]
    assert first["exactly"] == {
        "deviceClassName": "c",
        "allocationMode": "ExactCount",
        "count": 1,
        "tolerations": [{"key": "k", "operator": "Equal"}],
    }
    assert second["exactly"] == {"deviceClassName": "c", "allocationMode": "All"}
    assert third["firstAvailable"][0] == {
        "name": "d",
        "deviceClassName": "c",
        "allocationMode": "ExactCount",
        "count": 1,
    }
    apply_defaults(RESOURCE_CLAIM_TEMPLATES, as_template, now="")
    assert as_template["spec"]["spec"] == claim["spec"]


def test_defaults_make_a_short_claim_valid() -> None:
    short = put(CLAIM, "spec", {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "c"}}]}})
    assert refused(short) == {(f"{AT}.allocationMode", "NotSupported")}
    apply_defaults(RESOURCE_CLAIMS, short, now="")
    assert refused(short) == set()


PATHS = [
    "metadata", "spec", "spec.devices", REQUESTS, f"{REQUESTS}.0", EXACTLY, f"{EXACTLY}.selectors", f"{EXACTLY}.capacity",
    f"{EXACTLY}.tolerations", f"{EXACTLY}.derivedAttributes", f"{REQUESTS}.1.firstAvailable", "spec.devices.constraints",
    "spec.devices.constraints.0", "spec.devices.config", "spec.devices.config.0.opaque", "status", "status.allocation",
    "status.allocation.devices", "status.allocation.devices.results.0", "status.allocation.devices.config.0",
    "status.reservedFor", "status.devices",
]  # fmt: skip


@given(st.sampled_from(PATHS), json_values)
def test_no_json_value_anywhere_makes_it_crash(path: str, value: object) -> None:
    spoiled = put(allocated(), path, value)
    validate_create(RESOURCE_CLAIMS, spoiled)
    validate_update(RESOURCE_CLAIMS, spoiled, CLAIM)
    validate_update(RESOURCE_CLAIMS, spoiled, CLAIM, subresource="status")
    apply_defaults(RESOURCE_CLAIMS, spoiled, now="")
