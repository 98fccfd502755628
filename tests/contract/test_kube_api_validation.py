"""What is refused, where and for which reason: recorded from a real server, asked of every implementation.

A recording has a list of [field, reason] for each object of ``refusals``; texts may differ. The newest is what our own
API must answer; those of older minors hold only a real server of theirs. To record again, run
``python -m tests.contract.test_kube_api_validation KUBECONFIG MINOR`` against a server that holds nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dra_driver.kube.connect import connect
from dra_driver.kube.interface import (
    DEVICE_CLASSES,
    NAMESPACES,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    Invalid,
    KubeApi,
    Obj,
    Resource,
)
from e2e.clusters import programs
from tests.contract.conftest import Cluster
from tests.contract.objects import allocation, claim, resource_slice
from tests.contract.refusals import CLAIMS, CLASSES, SLICES, STATUSES, Change

RECORDINGS = Path(__file__).parents[1] / "data" / "kube"
RECORDING = RECORDINGS / f"refusals-{programs.NEWEST_KUBERNETES}.json"
Causes = list[list[str]]


def attempt(call: Callable[[], object]) -> Causes:
    """The distinct (field, reason) of a refusal, in order; nothing when it was taken."""
    try:
        call()
    except Invalid as error:
        pairs = [(cause["field"], cause["reason"]) for cause in error.details["causes"]]
        return [list(pair) for pair in dict.fromkeys(pairs)]
    return []


def create_dry(api: KubeApi, resource: Resource, obj: Obj, change: Change) -> Causes:
    change(obj)
    return attempt(lambda: api.create(resource, obj, dry_run=True))


def outcomes(api: KubeApi, namespace: str) -> Iterator[tuple[str, Causes]]:
    """Every object of ``refusals`` with what the server says to it."""
    for name, change in SLICES.items():
        yield f"slice: {name}", create_dry(api, RESOURCE_SLICES, resource_slice("x", node="n1"), change)
    for name, change in CLAIMS.items():
        yield f"claim: {name}", create_dry(api, RESOURCE_CLAIMS, claim("x", namespace), change)
    for name, change in CLASSES.items():
        yield f"class: {name}", create_dry(api, DEVICE_CLASSES, {"metadata": {"name": "x"}, "spec": {}}, change)
    api.create(RESOURCE_CLAIMS, claim("status", namespace))
    for name, status in STATUSES.items():
        yield f"status: {name}", attempt(lambda body={"status": status}: patch_status(api, namespace, body))  # type: ignore[misc]


def patch_status(api: KubeApi, namespace: str, body: Obj) -> Obj:
    return api.patch(RESOURCE_CLAIMS, "status", body, namespace, subresource="status", dry_run=True)


def recording(cluster: Cluster) -> Path:
    return RECORDINGS / f"refusals-{cluster.minor}.json" if cluster.is_older else RECORDING


def test_refusals_are_those_of_the_real_server(cluster: Cluster) -> None:
    recorded = json.loads(recording(cluster).read_text())
    found = dict(outcomes(cluster.api, cluster.namespace))
    assert found.keys() == recorded.keys()
    assert {name: sorted(causes) for name, causes in found.items()} == {
        name: sorted(causes) for name, causes in recorded.items()
    }


def refused(call: Callable[[], object]) -> list[tuple[str, str]]:
    return [(field, reason) for field, reason in attempt(call)]


def test_what_an_update_may_not_change(cluster: Cluster) -> None:
    api, name = cluster.api, cluster.name
    api.create(RESOURCE_SLICES, resource_slice(name, node=name))
    for body, expected in (
        ({"nodeName": "other"}, [("spec.nodeName", "FieldValueInvalid")]),
        ({"driver": "other.example.com"}, [("spec.driver", "FieldValueInvalid")]),
        ({"pool": {"name": "other"}}, [("spec.pool.name", "FieldValueInvalid")]),
        ({"pool": {"generation": 7}}, []),
    ):
        assert refused(lambda b=body: api.patch(RESOURCE_SLICES, name, {"spec": b})) == expected  # type: ignore[misc]

    api.create(RESOURCE_CLAIMS, claim("claim", name))
    changed: Any = {"spec": {"devices": {"constraints": [{"matchAttribute": "a.example.com/b"}]}}}
    assert refused(lambda: api.patch(RESOURCE_CLAIMS, "claim", changed, name)) == [("spec", "FieldValueInvalid")]
    template = claim("template", name)
    api.create(RESOURCE_CLAIM_TEMPLATES, {"metadata": template["metadata"], "spec": {"spec": template["spec"]}})
    nested = {"spec": changed}
    assert refused(lambda: api.patch(RESOURCE_CLAIM_TEMPLATES, "template", nested, name)) == [
        ("spec", "FieldValueInvalid")
    ]


def test_an_allocation_is_set_once(cluster: Cluster) -> None:
    api, namespace = cluster.api, cluster.namespace
    api.create(RESOURCE_CLAIMS, claim("claim", namespace))

    def set_status(**status: Any) -> list[tuple[str, str]]:
        return refused(lambda: api.patch(RESOURCE_CLAIMS, "claim", {"status": status}, namespace, subresource="status"))

    assert set_status(allocation=allocation("n1")) == []
    assert set_status(allocation=allocation("n2")) == [("status.allocation", "FieldValueInvalid")]
    pod = {"resource": "pods", "name": "p", "uid": "u"}
    assert set_status(reservedFor=[pod]) == []
    assert set_status(allocation=None) == [("status.reservedFor", "FieldValueForbidden")]
    assert set_status(reservedFor=None, allocation=None) == []


def test_admin_access_needs_the_label_of_its_namespace(cluster: Cluster) -> None:
    api, namespace = cluster.api, cluster.namespace
    wanted = [{"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com", "adminAccess": True}}]
    assert refused(lambda: api.create(RESOURCE_CLAIMS, claim("admin", namespace, wanted))) == [
        ("spec.devices.requests[0].adminAccess", "FieldValueForbidden")
    ]
    labels = {"resource.kubernetes.io/admin-access": "true"}
    api.patch(NAMESPACES, namespace, {"metadata": {"labels": labels}})
    created = api.create(RESOURCE_CLAIMS, claim("admin", namespace, wanted))
    assert created["spec"]["devices"]["requests"][0]["exactly"]["adminAccess"] is True


@pytest.mark.parametrize("resource", [RESOURCE_SLICES, RESOURCE_CLAIMS, DEVICE_CLASSES])
def test_the_message_names_kind_object_and_path(cluster: Cluster, resource: Resource) -> None:
    obj: Obj = {"metadata": {"name": "A_B"}, "spec": {}}
    if resource == RESOURCE_SLICES:
        obj = resource_slice("A_B", node="n1")
    if resource == RESOURCE_CLAIMS:
        obj = claim("A_B", cluster.namespace)
    with pytest.raises(Invalid) as caught:
        cluster.api.create(resource, obj)
    start = f'{resource.kind}.resource.k8s.io "A_B" is invalid: metadata.name: Invalid value: "A_B": '
    assert caught.value.message.startswith(start)
    assert caught.value.details["name"] == "A_B"
    assert caught.value.details["kind"] == resource.kind
    assert caught.value.details["group"] == "resource.k8s.io"


def record(kubeconfig: str, minor: str) -> None:
    api = connect(kubeconfig)
    api.create(NAMESPACES, {"metadata": {"name": "record"}})
    found = dict(outcomes(api, "record"))
    lines = [f"{json.dumps(name)}: {json.dumps(causes)}" for name, causes in found.items()]
    (RECORDINGS / f"refusals-{minor}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    record(sys.argv[1], sys.argv[2])
