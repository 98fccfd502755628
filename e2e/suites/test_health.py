"""A GPU that breaks: it is not offered any more, and the pods that have it say so in their status."""

from __future__ import annotations

import pytest

from dra_driver.devices.naming import parse_name
from dra_driver.kube.interface import PODS, Obj
from e2e.kit.features import HEALTH, HEALTH_MESSAGES
from e2e.kit.pools import Gpu, free_gpus, gpus, wait_published
from e2e.kit.space import Space, container_ids
from e2e.kit.stage import Stage
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import Use, claim_spec, exactly, only_uuid, pod

_NOTICE_SECONDS = 30.0
_BACK_SECONDS = 60.0

pytestmark = pytest.mark.simulated


@pytest.mark.needs(HEALTH)
def test_health_of_a_device_in_the_status_of_its_pod(stage: Stage, space: Space) -> None:
    gpu = free_gpus(stage.api)[-1]
    # The kubelet of 1.34 reports health only where the pod's entry has the claim's own name (its manager.go).
    space.claim("gpu", claim_spec(exactly(selectors=[only_uuid(gpu.uuid)])))
    space.pod(pod("holder", Use(claim="gpu", entry="gpu")))
    before = space.wait_ready("holder")["holder"]
    wait_health(space, "holder", "Healthy")
    with stage.pods.lost_gpu(gpu.pool, parse_name(gpu.name).minor):
        found = wait_health(space, "holder", "Unhealthy")
        if stage.features.has(HEALTH_MESSAGES):
            assert found.get("message"), "the status must say what is wrong"
    wait_health(space, "holder", "Healthy", timeout=_BACK_SECONDS)
    assert container_ids(space.pods()["holder"]) == container_ids(before)
    wait_published(stage.api, stage.nodes, _BACK_SECONDS)


def test_a_lost_gpu_is_not_offered(stage: Stage) -> None:
    gpu = free_gpus(stage.api)[-1]
    before = gpus(stage.api)
    with stage.pods.lost_gpu(gpu.pool, parse_name(gpu.name).minor):
        wait_offered(stage, [other for other in before if other != gpu])
    wait_offered(stage, before)


def wait_health(space: Space, name: str, health: str, timeout: float = _NOTICE_SECONDS) -> Obj:
    """The status entry of the pod's one device, once it says ``health``."""

    def look() -> Obj:
        status = space.api.get(PODS, name, space.namespace)["status"]["containerStatuses"][0]
        entries = status.get("allocatedResourcesStatus") or ()
        found = [resource for entry in entries for resource in entry.get("resources") or ()]
        if [resource.get("health") for resource in found] != [health]:
            raise NotYet(f"the status of {name} is to say {health}, it says {list(entries) or 'nothing'}")
        return dict(found[0])

    return eventually(look, timeout)


def wait_offered(stage: Stage, wanted: list[Gpu]) -> None:
    def look() -> None:
        offered = {gpu for gpu in gpus(stage.api) if not gpu.tainted}
        if offered != set(wanted):
            missing, extra = set(wanted) - offered, offered - set(wanted)
            raise NotYet(f"not offered: {_names(missing)}; offered too much: {_names(extra)}")

    eventually(look, _BACK_SECONDS)


def _names(found: set[Gpu]) -> str:
    return ", ".join(sorted(f"{gpu.pool}/{gpu.name}" for gpu in found)) or "none"
