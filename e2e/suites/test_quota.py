"""ResourceQuotas on GPUs: by claims of a class, and by the extended resource."""

from __future__ import annotations

import pytest

from dra_driver.kube.interface import Forbidden
from dra_driver.kube.resources import RESOURCE_QUOTAS
from e2e.kit.features import CLAIMS_COUNT_AS_EXTENDED, EXTENDED_RESOURCES
from e2e.kit.space import Space
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import GPU_CLASS, Container, Use, claim_spec, exactly, pod

_BY_CLASS = f"{GPU_CLASS}.deviceclass.resource.k8s.io/devices"
_BY_RESOURCE = "requests.nvidia.com/gpu"
_QUOTA_SECONDS = 30.0


def test_quota_on_devices_of_a_class(space: Space) -> None:
    set_quota(space, _BY_CLASS, 2)
    with pytest.raises(Forbidden, match="exceeded quota"):
        space.claim("three", claim_spec(exactly(count=3)))
    space.claim("two", claim_spec(exactly(count=2)))
    wait_used(space, _BY_CLASS, 2)
    with pytest.raises(Forbidden, match="exceeded quota"):
        space.claim("one-more", claim_spec())
    space.pod(pod("pair", Use(claim="two")))
    space.wait_ready("pair")
    space.check_containers("pair")
    space.delete_pods("pair")
    space.delete_claim("two")
    wait_used(space, _BY_CLASS, 0)
    space.claim("one", claim_spec())


def test_quota_on_the_extended_resource(space: Space) -> None:
    set_quota(space, _BY_RESOURCE, 1)
    with pytest.raises(Forbidden, match="exceeded quota"):
        space.pod(pod("two", containers=(Container(limits={"nvidia.com/gpu": "2"}),)))
    space.pod(pod("one", containers=(Container(limits={"nvidia.com/gpu": "1"}),)))
    wait_used(space, _BY_RESOURCE, 1)
    with pytest.raises(Forbidden, match="exceeded quota"):
        space.pod(pod("one-more", containers=(Container(limits={"nvidia.com/gpu": "1"}),)))


@pytest.mark.needs(EXTENDED_RESOURCES)
def test_a_pod_within_its_quota_runs(space: Space) -> None:
    set_quota(space, _BY_RESOURCE, 1)
    space.pod(pod("one", containers=(Container(limits={"nvidia.com/gpu": "1"}),)))
    space.wait_ready("one")
    space.check_containers("one")
    wait_used(space, _BY_RESOURCE, 1)
    space.delete_pods("one")
    wait_used(space, _BY_RESOURCE, 0)


@pytest.mark.needs(EXTENDED_RESOURCES, CLAIMS_COUNT_AS_EXTENDED)
def test_claims_count_against_the_extended_resource(space: Space) -> None:
    set_quota(space, _BY_RESOURCE, 1)
    space.claim("one", claim_spec())
    wait_used(space, _BY_RESOURCE, 1)
    with pytest.raises(Forbidden, match="exceeded quota"):
        space.claim("one-more", claim_spec())


def set_quota(space: Space, resource: str, count: int) -> None:
    """Returns when the quota counts: before, the API server refuses everything, or nothing."""
    body = {"metadata": {"name": "gpus", "namespace": space.namespace}, "spec": {"hard": {resource: str(count)}}}
    space.api.create(RESOURCE_QUOTAS, body)
    wait_used(space, resource, 0)


def wait_used(space: Space, resource: str, count: int) -> None:
    def look() -> None:
        status = space.api.get(RESOURCE_QUOTAS, "gpus", space.namespace).get("status") or {}
        used = (status.get("used") or {}).get(resource)
        if used != str(count):
            raise NotYet(f"quota {resource}: {used} used, not {count}")

    eventually(look, _QUOTA_SECONDS)
