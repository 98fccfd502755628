"""Which device a claim gets: CEL selectors, constraints, alternatives, and what happens when nothing fits."""

from __future__ import annotations

import pytest

from e2e.kit.features import PRIORITIZED_LISTS
from e2e.kit.pools import free_gpus, gpus
from e2e.kit.space import Space
from e2e.kit.stage import Stage
from e2e.kit.workloads import Use, alternative, at_least, claim_spec, exactly, first_available, only_uuid, pod

_SCHEDULER_SAYS = "cannot allocate all claims"


def test_selector_picks_that_device(stage: Stage, space: Space) -> None:
    wanted = free_gpus(stage.api)[-1]  # not the one that a claim without a selector would get
    space.template("that", claim_spec(exactly(selectors=[only_uuid(wanted.uuid)])))
    space.pod(pod("picky", Use(template="that")))
    space.wait_ready("picky")
    assert [(found.pool, found.device) for found in space.devices_of("picky")] == [(wanted.pool, wanted.name)]
    space.check_containers("picky")


def test_no_match_stays_pending_and_says_why(space: Space) -> None:
    space.template("huge", claim_spec(exactly(selectors=[at_least("1Ti")])))
    space.pod(pod("waits", Use(template="huge")))
    message = space.stays_pending("waits")
    assert _SCHEDULER_SAYS in message
    assert not space.devices_of("waits")


def test_a_selector_that_breaks_is_named(space: Space) -> None:
    space.template("broken", claim_spec(exactly(selectors=['device.attributes["gpu.nvidia.com"].noSuchThing == "x"'])))
    space.pod(pod("waits", Use(template="broken")))
    message = space.stays_pending("waits")
    assert "noSuchThing" in message, message


def test_a_freed_device_goes_to_who_waits(stage: Stage, space: Space) -> None:
    # The last one: of the first the scheduler may not have heard yet that the pods of the test before are gone, and it
    # has been seen to try no second time then.
    wanted = free_gpus(stage.api)[-1]
    space.template("that", claim_spec(exactly(selectors=[only_uuid(wanted.uuid)])))
    space.pod(pod("holds", Use(template="that")))
    space.wait_ready("holds")
    space.pod(pod("waits", Use(template="that")))
    assert _SCHEDULER_SAYS in space.stays_pending("waits")
    space.delete_pods("holds")
    space.wait_ready("waits")
    space.check_containers("waits")


def test_devices_on_one_pcie_root(stage: Stage, space: Space) -> None:
    roots = [(gpu.pool, gpu.pcie_root) for gpu in free_gpus(stage.api) if gpu.pcie_root]
    if len(roots) == len(set(roots)):
        pytest.skip("no two GPUs of this machine are on one PCIe root")
    same = {"requests": ["gpu"], "matchAttribute": "resource.kubernetes.io/pcieRoot"}
    space.template("close", claim_spec(exactly(count=2), constraints=[same]))
    space.pod(pod("close", Use(template="close")))
    space.wait_ready("close")
    got = {(result.pool, result.device) for result in space.devices_of("close")}
    assert len(got) == 2
    assert len({gpu.pcie_root for gpu in gpus(stage.api) if (gpu.pool, gpu.name) in got}) == 1
    space.check_containers("close")


@pytest.mark.needs(PRIORITIZED_LISTS)
def test_first_alternative_that_fits(space: Space) -> None:
    space.template(
        "best",
        claim_spec(
            first_available(
                "gpu",
                alternative("huge", selectors=[at_least("1Ti")]),
                alternative("pair", count=2),
                alternative("any"),
            )
        ),
    )
    space.pod(pod("best", Use(template="best")))
    space.wait_ready("best")
    results = space.devices_of("best")
    assert {result.request for result in results} == {"gpu/pair"}
    assert len(results) == 2
    space.check_containers("best")
