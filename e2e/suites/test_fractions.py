"""Fractions of GPUs on a real cluster: the scheduler counts, the driver fences, the container's own view proves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.fractions import SharingBackend
from dra_driver.cli.manifests import in_order, load
from dra_driver.kube.interface import PODS, RESOURCE_CLAIMS
from e2e.kit.features import SHARES
from e2e.kit.fractions import VALUES, check_a_hundred, check_held, fraction, offering_fractions, usable
from e2e.kit.manifests import features_used, try_manifests
from e2e.kit.pools import gpus
from e2e.kit.space import Space, halves, names
from e2e.kit.stage import SETTINGS, Stage
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import Use, claim_spec, exactly, only_uuid, pod

EXAMPLES = sorted(each for each in (VALUES.parents[1] / "fractions").glob("0*.yaml"))
GIB = 2**30

pytestmark = [pytest.mark.own_install, pytest.mark.needs(SHARES), pytest.mark.simulated, pytest.mark.last(34)]


@pytest.fixture(scope="module")
def offering(session_stage: Stage) -> Iterator[None]:
    if not session_stage.features.has(SHARES):
        pytest.skip("the server has no consumable capacity")
    with offering_fractions(session_stage, SETTINGS, SharingBackend.MPS):
        yield


@pytest.fixture(scope="module")
def leaving(session_stage: Stage, offering: None) -> Iterator[list[Space]]:
    spaces: list[Space] = []
    yield spaces
    for space in spaces:
        space.close()
    session_stage.wait_clean()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(stage: Stage, leaving: list[Space], path: Path) -> None:
    manifests = in_order(load([path]))
    for feature in features_used(manifests):
        if not stage.features.has(feature):
            pytest.skip(f"no {feature}: {stage.features.missing[feature]}")
    try_manifests(stage, manifests, leaving)


def test_a_container_is_held_to_its_fraction(stage: Stage, offering: None, space: Space) -> None:
    told = check_held(stage, space)
    assert (told["data"]["backend"], told["data"]["enforcement"]) == ("Mps", "Cooperative")


def test_who_asks_for_nothing_has_the_gpu_alone(stage: Stage, offering: None, space: Space) -> None:
    node = stage.nodes[0]
    uuid = gpus(stage.api, node)[0].uuid
    space.claim("whole", claim_spec(exactly(selectors=[only_uuid(uuid)])))
    space.pod(pod("whole", Use(claim="whole"), node=node))
    space.wait_ready("whole")
    assert "CUDA_MPS" not in " ".join(space.look("whole").environment)
    space.claim("part", fraction("256Mi", selectors=[only_uuid(uuid)]))
    space.pod(pod("part", Use(claim="part"), node=node))
    space.stays_pending("part")
    space.delete_pods("whole")
    space.delete_claim("whole")
    space.wait_ready("part")


def test_a_gpu_is_filled_to_its_last_step_and_no_further(stage: Stage, offering: None, space: Space) -> None:
    node = stage.nodes[0]
    first = gpus(stage.api, node)[0]
    size = 9 * GIB + GIB // 2
    fits = usable(stage)[first.name] // size
    space.template("part", fraction("9.5Gi", selectors=[only_uuid(first.uuid)]))
    *fitting, waits = names("part", fits + 1)
    for batch in halves(fitting):
        for name in batch:
            space.pod(pod(name, Use(template="part"), node=node))
        space.wait_ready(*batch)
    space.pod(pod(waits, Use(template="part"), node=node))
    space.stays_pending(waits)
    space.delete_pods(fitting[0])
    space.wait_ready(waits)


@pytest.mark.timeout(300, func_only=True)
def test_a_hundred_shares(stage: Stage, offering: None, space: Space) -> None:
    check_a_hundred(stage, space)


def test_what_the_node_cannot_enforce_is_refused_with_a_sentence(stage: Stage, offering: None, space: Space) -> None:
    space.claim("elastic", fraction("2Gi", config={"memoryLimit": "1Gi"}))
    space.pod(pod("elastic", Use(claim="elastic"), node=stage.nodes[0]))

    def look() -> None:
        said = " ".join(space.failed_prepares())
        if "opaque.parameters.memoryLimit: " not in said:
            raise NotYet(f"the pod's Events say {said or 'nothing'}")

    eventually(look, 60)
    found = space.api.get(PODS, "elastic", space.namespace)
    assert found["status"]["phase"] == "Pending"
    assert "devices" not in (space.api.get(RESOURCE_CLAIMS, "elastic", space.namespace)["status"])
