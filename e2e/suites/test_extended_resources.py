"""``nvidia.com/gpu`` in the limits, as every manifest for a device plugin has it: the scheduler makes the claim."""

from __future__ import annotations

import pytest

from dra_driver.kube.interface import NODES, PODS
from e2e.kit.features import EXTENDED_RESOURCES, IMPLICIT_EXTENDED_RESOURCES, extended_class_resource
from e2e.kit.pools import gpus
from e2e.kit.space import Space
from e2e.kit.stage import Stage
from e2e.kit.workloads import Container, Use, claim_spec, pod

RESOURCE = "nvidia.com/gpu"

pytestmark = pytest.mark.needs(EXTENDED_RESOURCES)


def test_one_gpu_by_limits(space: Space) -> None:
    space.pod(pod("limits", containers=(limited("main", 1),)))
    space.wait_ready("limits")
    assert len(space.check_containers("limits")["main"].gpus) == 1
    assert list(space.claims_of("limits")) == [""]
    space.delete_pods("limits")
    assert not space.claims(), "the scheduler's claim must go with its pod"


def test_each_container_has_its_own(space: Space) -> None:
    space.pod(pod("several", containers=(limited("one", 1), limited("two", 2), Container("none"))))
    space.wait_ready("several")
    seen = space.check_containers("several")
    assert [len(seen[name].gpus) for name in ("one", "two", "none")] == [1, 2, 0]
    assert not seen["one"].gpus & seen["two"].gpus


def test_beside_a_claim(space: Space) -> None:
    space.template("one", claim_spec())
    containers = (limited("limits", 1), Container("claim", claims=("gpu",)))
    space.pod(pod("mixed", Use(template="one"), containers=(_without_claims(containers[0]), containers[1])))
    space.wait_ready("mixed")
    seen = space.check_containers("mixed")
    assert len(seen["limits"].gpus) == len(seen["claim"].gpus) == 1
    assert seen["limits"].gpus != seen["claim"].gpus


def test_more_than_there_are_stays_pending(stage: Stage, space: Space) -> None:
    space.pod(pod("greedy", containers=(limited("main", len(gpus(stage.api)) + 1),)))
    message = space.stays_pending("greedy")
    assert RESOURCE in message or "cannot allocate all claims" in message, message
    for node in stage.api.list(NODES).items:
        assert RESOURCE not in node["status"]["allocatable"], "no device plugin may be at work beside the driver"


@pytest.mark.needs(IMPLICIT_EXTENDED_RESOURCES)
def test_the_class_by_its_own_name(space: Space) -> None:
    container = Container("main", limits={extended_class_resource(): "1"})
    space.pod(pod("implicit", containers=(container,)))
    space.wait_ready("implicit")
    assert len(space.check_containers("implicit")["main"].gpus) == 1
    status = space.api.get(PODS, "implicit", space.namespace)["status"]
    assert status["extendedResourceClaimStatus"]["requestMappings"][0]["resourceName"] == extended_class_resource()


def limited(name: str, count: int) -> Container:
    return Container(name, limits={RESOURCE: str(count)})


def _without_claims(container: Container) -> Container:
    return Container(container.name, claims=(), limits=container.limits)
