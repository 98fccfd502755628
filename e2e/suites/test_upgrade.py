"""``helm upgrade`` while pods come and go, and what uninstalling leaves."""

from __future__ import annotations

import secrets

import pytest

from dra_driver.kube.interface import CUSTOM_RESOURCE_DEFINITIONS, RESOURCE_SLICES, NotFound
from e2e.kit.churn import churning
from e2e.kit.metrics import prepare_errors
from e2e.kit.pools import driver_slices, versions
from e2e.kit.recording import recording
from e2e.kit.space import Space, container_ids
from e2e.kit.stage import SETTINGS, Stage
from e2e.kit.workloads import Use, claim_spec, pod

pytestmark = pytest.mark.own_install

_REVISION = "e2e\\.gpu-dra\\.dev/revision"


@pytest.mark.last(40)
def test_upgrade_under_churn_fails_no_prepare(stage: Stage, space: Space) -> None:
    space.template("one", claim_spec())
    space.pod(pod("bystander", Use(template="one")))
    before = space.wait_ready("bystander")["bystander"]
    published = versions(driver_slices(stage.api))
    old = {found["metadata"]["uid"] for found in [*stage.pods.plugins(), *stage.pods.controllers()]}
    revision = f"r{secrets.token_hex(4)}"  # a letter first: helm takes eight digits for a number
    settings = [f"{part}.podAnnotations.{_REVISION}={revision}" for part in ("controller", "kubeletPlugin")]
    with recording(stage.api, RESOURCE_SLICES) as slices, churning(space) as churn:
        stage.driver.start_upgrade([*SETTINGS, *settings])
        stage.driver.wait()
        stage.pods.wait_leader()
    new = {found["metadata"]["uid"] for found in [*stage.pods.plugins(), *stage.pods.controllers()]}
    assert not new & old, "every pod of the driver must have been replaced"
    assert churn.rounds > 0
    assert not churn.problems
    assert not space.failed_prepares()
    assert not prepare_errors(stage)
    assert not slices.describe()
    assert versions(driver_slices(stage.api)) == published
    assert container_ids(space.pods()["bystander"]) == container_ids(before)
    space.check_containers("bystander")


@pytest.mark.last(90)
def test_uninstall_takes_everything_and_install_brings_it_back(stage: Stage, space: Space) -> None:
    stage.driver.uninstall()
    stage.driver.wait_uninstalled()
    assert not driver_slices(stage.api)
    with pytest.raises(NotFound):
        stage.api.get(CUSTOM_RESOURCE_DEFINITIONS, "nodeinventories.gpu-dra.dev")
    assert not left_over(stage)
    stage.install_driver()
    space.template("one", claim_spec())
    space.pod(pod("again", Use(template="one")))
    space.wait_ready("again")
    space.check_containers("again")


def left_over(stage: Stage) -> list[str]:
    """Cluster-scoped objects of the release that are still there."""
    kinds = (
        "clusterroles,clusterrolebindings,deviceclasses,validatingadmissionpolicies,validatingadmissionpolicybindings"
    )
    return stage.kubectl.run("get", kinds, "-l", "app.kubernetes.io/instance=gpu-dra", "-o", "name").split()
