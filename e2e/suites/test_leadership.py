"""Two controllers, one leader: the other takes over, and goes on where the first stopped."""

from __future__ import annotations

import pytest

from dra_driver.kube.interface import PODS, RESOURCE_SLICES, EventType
from e2e.install import NAMESPACE
from e2e.kit.pools import driver_slices, versions, wait_published
from e2e.kit.recording import recording
from e2e.kit.stage import Stage
from e2e.kit.waiting import NotYet, eventually

# The lease's own duration and the standby's next try (controller.leaderElection).
_TAKEOVER_SECONDS = 45.0
_PUBLISH_SECONDS = 60.0


@pytest.mark.last(11)
def test_the_other_controller_takes_over(stage: Stage) -> None:
    leader = stage.pods.wait_leader()
    with recording(stage.api, RESOURCE_SLICES) as slices:
        stage.api.delete(PODS, leader, NAMESPACE, grace_period_seconds=0)
        eventually(lambda: check_other_leader(stage, leader), _TAKEOVER_SECONDS)
        stage.driver.wait_rollout()
    assert not slices.describe(), "a new leader writes no slice that is as it should be"


@pytest.mark.last(12)
def test_a_new_leader_publishes_what_is_missing(stage: Stage) -> None:
    leader = stage.pods.wait_leader()
    node = stage.nodes[0]
    old = versions(driver_slices(stage.api, node))
    with recording(stage.api, RESOURCE_SLICES, field_selector=f"spec.nodeName={node}") as slices:
        stage.api.delete(PODS, leader, NAMESPACE, grace_period_seconds=0)
        for found in driver_slices(stage.api, node):
            stage.api.delete(RESOURCE_SLICES, found["metadata"]["name"])
        eventually(lambda: check_other_leader(stage, leader), _TAKEOVER_SECONDS)
        wait_published(stage.api, [node], _PUBLISH_SECONDS)
    assert not old.keys() & versions(driver_slices(stage.api, node)).keys()
    assert len(slices.of(EventType.ADDED)) == len(old), "each slice is made once"
    stage.driver.wait_rollout()


def check_other_leader(stage: Stage, old: str) -> None:
    leader = stage.pods.leader()
    if leader in ("", old):
        raise NotYet(f"the lease is held by {leader or 'nobody'}")
