"""Claims and pods as the suites write them, against the validation that the API server has."""

from __future__ import annotations

import pytest

from dra_driver.kube.interface import NAMESPACES, PODS, RESOURCE_CLAIMS, Obj
from dra_driver.simulation.store import EmbeddedApi
from e2e.kit.workloads import (
    Container,
    Use,
    alternative,
    at_least,
    claim_spec,
    exactly,
    first_available,
    only_uuid,
    pod,
)

_SPECS = {
    "default": claim_spec(),
    "count": claim_spec(exactly(count=2)),
    "selected": claim_spec(exactly(selectors=[only_uuid("GPU-1"), at_least("40Gi")])),
    "tolerant": claim_spec(exactly(tolerations=[{"key": "a.example/b", "operator": "Exists"}])),
    "two": claim_spec(exactly("a"), exactly("b"), constraints=[{"requests": ["a"], "matchAttribute": "x.example/y"}]),
    "listed": claim_spec(first_available("gpu", alternative("two", count=2), alternative("any"))),
}


@pytest.fixture
def api() -> EmbeddedApi:
    api = EmbeddedApi()
    api.create(NAMESPACES, {"metadata": {"name": "test"}})
    return api


@pytest.mark.parametrize("spec", _SPECS.values(), ids=_SPECS.keys())
def test_claims_are_valid(api: EmbeddedApi, spec: Obj) -> None:
    made = api.create(RESOURCE_CLAIMS, {"metadata": {"name": "claim", "namespace": "test"}, "spec": spec})
    assert made["spec"]["devices"]["requests"][0]["name"] == spec["devices"]["requests"][0]["name"]


def test_containers_name_every_entry_unless_they_say_otherwise(api: EmbeddedApi) -> None:
    body = pod(
        "one",
        Use(claim="mine", entry="left"),
        Use(template="one", entry="right"),
        containers=(Container("all"), Container("part", claims=("left/a",)), Container("none", claims=())),
    )
    made = api.create(PODS, {**body, "metadata": {**body["metadata"], "namespace": "test"}})
    claims = [container["resources"].get("claims") for container in made["spec"]["containers"]]
    assert claims == [[{"name": "left"}, {"name": "right"}], [{"name": "left", "request": "a"}], None]
    assert made["spec"]["resourceClaims"] == [
        {"name": "left", "resourceClaimName": "mine"},
        {"name": "right", "resourceClaimTemplateName": "one"},
    ]


def test_limits_are_kept() -> None:
    body = pod("one", containers=(Container(limits={"nvidia.com/gpu": "1"}),))
    assert body["spec"]["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    assert "resourceClaims" not in body["spec"]
