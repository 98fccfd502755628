"""Time slices on a real node: the interval is on the hardware while a claim wants it, and nowhere else afterwards."""

from __future__ import annotations

import pytest

from api.claim_config import SharingStrategy, TimeSliceInterval
from dra_driver.kube.interface import PODS, Obj
from e2e.clusters.interface import Ability
from e2e.install import NAMESPACE
from e2e.kit.node_sharing import read_sharing
from e2e.kit.pools import Gpu, free_gpus
from e2e.kit.space import Space
from e2e.kit.stage import Stage
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import Use, claim_spec, exactly, only_uuid, pod, shared
from e2e.suites.test_restarts import check_replaced

_SECONDS = 15.0

pytestmark = [pytest.mark.simulated, pytest.mark.hands(Ability.RUN_ON_NODE)]


def sliced(gpu: Gpu, interval: str | None) -> Obj:
    """A claim for that GPU. ``interval``: None leaves it out."""
    settings = None if interval is None else {"interval": interval}
    return claim_spec(exactly(selectors=[only_uuid(gpu.uuid)]), config=[shared(SharingStrategy.TIME_SLICING, settings)])


def wait_interval(stage: Stage, gpu: Gpu, interval: TimeSliceInterval) -> None:
    def look() -> None:
        found = read_sharing(stage.cluster, gpu.pool)
        seen = found.intervals.get(gpu.uuid, TimeSliceInterval.DEFAULT)
        if seen is not interval or gpu.uuid in found.modes:
            raise NotYet(f"{gpu.name}: interval {interval} and mode DEFAULT are wanted, there is {found}")

    eventually(look, _SECONDS)


@pytest.mark.parametrize("interval", ["Short", "Medium", "Long"])
def test_an_interval_is_set_for_a_claim_and_set_back(stage: Stage, space: Space, interval: str) -> None:
    gpu = free_gpus(stage.api)[0]
    space.claim("sliced", sliced(gpu, interval))
    for name in ("first", "second"):
        space.pod(pod(name, Use(claim="sliced")))
    space.wait_ready("first", "second")
    for name in ("first", "second"):
        view = space.check_containers(name)["main"]
        assert "CUDA_MPS_PIPE_DIRECTORY" not in view.environment
    wait_interval(stage, gpu, TimeSliceInterval(interval))
    space.delete_pods("first")
    wait_interval(stage, gpu, TimeSliceInterval(interval))
    space.delete_pods("second")
    wait_interval(stage, gpu, TimeSliceInterval.DEFAULT)


def test_without_an_interval_it_is_the_default(stage: Stage, space: Space) -> None:
    gpu = free_gpus(stage.api)[0]
    space.claim("sliced", sliced(gpu, None))
    space.pod(pod("only", Use(claim="sliced")))
    space.wait_ready("only")
    wait_interval(stage, gpu, TimeSliceInterval.DEFAULT)


def test_an_interval_that_there_is_not_is_told_and_changes_nothing(stage: Stage, space: Space) -> None:
    gpu = free_gpus(stage.api)[0]
    space.claim("sliced", sliced(gpu, "Longest"))
    space.pod(pod("refused", Use(claim="sliced")))
    eventually(
        lambda: check_told(space, "sharing.timeSlicingConfig.interval", "Default, Short, Medium, Long"), _SECONDS
    )
    wait_interval(stage, gpu, TimeSliceInterval.DEFAULT)


@pytest.mark.last(23)
def test_an_interval_is_set_back_when_its_pod_went_while_the_plugin_was_away(stage: Stage, space: Space) -> None:
    gpu = free_gpus(stage.api)[0]
    space.claim("sliced", sliced(gpu, "Long"))
    space.pod(pod("leaves", Use(claim="sliced")))
    space.wait_ready("leaves")
    old = stage.pods.plugin(gpu.pool)
    stage.api.delete(PODS, old["metadata"]["name"], NAMESPACE, grace_period_seconds=0)
    space.delete_pods("leaves")
    eventually(lambda: check_replaced(stage, gpu.pool, old), 120)
    stage.driver.wait_rollout()
    wait_interval(stage, gpu, TimeSliceInterval.DEFAULT)


def check_told(space: Space, *words: str) -> None:
    """An event of the pod says all of that."""
    said = " ".join(space.failed_prepares())
    if missing := [word for word in words if word not in said]:
        raise NotYet(f"no event says {missing}: {said or 'nothing'}")
