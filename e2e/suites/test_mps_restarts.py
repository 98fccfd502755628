"""Clients of an MPS daemon compute on, whoever of the driver is restarted, killed or upgraded."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from dra_driver.kube.interface import PODS
from e2e.clusters.interface import Ability
from e2e.install import NAMESPACE, PLUGIN, SUPERVISOR
from e2e.kit.driver_pods import DriverPods
from e2e.kit.mps_clients import Counting, client_pod
from e2e.kit.node_sharing import read_sharing
from e2e.kit.pools import free_gpus
from e2e.kit.space import Space
from e2e.kit.stage import SETTINGS, Stage
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import Use
from e2e.suites.test_mps import by_mps, wait_nothing_left

_BACK_SECONDS = 60.0
_REVISION = "e2e\\.gpu-dra\\.dev/revision"

pytestmark = [
    pytest.mark.simulated,
    pytest.mark.hands(Ability.RUN_ON_NODE),
    pytest.mark.last(24),
    pytest.mark.timeout(500, func_only=True),
]


def restart_plugin(stage: Stage, _node: str) -> None:
    stage.kubectl.run("-n", NAMESPACE, "rollout", "restart", f"daemonset/{PLUGIN}")
    stage.driver.wait_rollout()


def restart_supervisor(stage: Stage, _node: str) -> None:
    stage.kubectl.run("-n", NAMESPACE, "rollout", "restart", f"daemonset/{SUPERVISOR}")
    stage.driver.wait_rollout()


def delete_supervisor(stage: Stage, node: str) -> None:
    """Without a grace period."""
    old = supervisor_on(stage.pods, node)
    stage.api.delete(PODS, old, NAMESPACE, grace_period_seconds=0)

    def look() -> None:
        if supervisor_on(stage.pods, node) in ("", old):
            raise NotYet("no new supervisor")

    eventually(look, _BACK_SECONDS)
    stage.driver.wait_rollout()


def kill_supervisor(stage: Stage, node: str) -> None:
    (old,) = read_sharing(stage.cluster, node).supervisors
    stage.cluster.run_on_node(node, ["kill", "-9", str(old)])

    def look() -> None:
        now = read_sharing(stage.cluster, node).supervisors
        if not now or old in now:
            raise NotYet(f"the supervisor is not back: {set(now)}")

    eventually(look, _BACK_SECONDS)
    stage.driver.wait_rollout()


def upgrade(stage: Stage, _node: str) -> None:
    """Every pod of the driver is replaced."""
    revision = f"r{secrets.token_hex(4)}"  # a letter first: helm takes eight digits for a number
    parts = ("controller", "kubeletPlugin", "mpsSupervisor")
    stage.driver.start_upgrade([*SETTINGS, *(f"{part}.podAnnotations.{_REVISION}={revision}" for part in parts)])
    stage.driver.wait()
    stage.pods.wait_leader()


def supervisor_on(pods: DriverPods, node: str) -> str:
    """Name of its pod; empty for none."""
    found = [pod["metadata"]["name"] for pod in pods.supervisors() if pod["spec"].get("nodeName") == node]
    return found[-1] if found else ""


@pytest.mark.parametrize(
    "disturb",
    [
        restart_plugin,
        restart_supervisor,
        delete_supervisor,
        kill_supervisor,
        pytest.param(upgrade, marks=pytest.mark.own_install),
    ],
)
def test_clients_are_never_interrupted(stage: Stage, space: Space, disturb: Callable[[Stage, str], None]) -> None:
    gpu = free_gpus(stage.api)[0]
    space.claim("shared", by_mps(gpu))
    space.pod(client_pod("before", Use(claim="shared")))
    counting = Counting.begin(space, "before")
    daemons = read_sharing(stage.cluster, gpu.pool).daemons
    disturb(stage, gpu.pool)
    counting.check_goes_on()
    assert read_sharing(stage.cluster, gpu.pool).daemons == daemons, "the daemon is the one of before"
    # Whoever comes afterwards finds it as well.
    space.pod(client_pod("after", Use(claim="shared")))
    Counting.begin(space, "after").check_goes_on()
    counting.check_goes_on()
    space.delete_pods("before", "after")
    wait_nothing_left(stage, gpu.pool)


@pytest.mark.parametrize("disturb", [restart_supervisor, kill_supervisor])
def test_a_group_that_an_earlier_supervisor_started_is_stopped(
    stage: Stage, space: Space, disturb: Callable[[Stage, str], None]
) -> None:
    gpu = free_gpus(stage.api)[0]
    space.claim("shared", by_mps(gpu))
    space.pod(client_pod("leaves", Use(claim="shared")))
    Counting.begin(space, "leaves")
    disturb(stage, gpu.pool)
    space.delete_pods("leaves")
    wait_nothing_left(stage, gpu.pool)
