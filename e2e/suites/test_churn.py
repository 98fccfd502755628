"""Many pods come and go: each has its own GPU, and nothing is left over."""

from __future__ import annotations

import pytest

from e2e.clusters.interface import Ability
from e2e.kit.expected import results_of
from e2e.kit.node_files import read_files
from e2e.kit.pools import free_gpus
from e2e.kit.space import Space, names
from e2e.kit.stage import Stage
from e2e.kit.workloads import Use, claim_spec, pod

_ROUNDS = 10
_PODS = 8


@pytest.mark.timeout(600, func_only=True)
def test_ten_rounds_of_eight_pods(stage: Stage, space: Space) -> None:
    """Each round's pods want the devices that the pods of the round before are just leaving."""
    space.template("one", claim_spec())
    count = min(_PODS, len(free_gpus(stage.api)))
    for round_ in range(_ROUNDS):
        pods = names(f"round-{round_}", count)
        for name in pods:
            space.pod(pod(name, Use(template="one"), grace=1))
        space.wait_ready(*pods)
        held = [(result.pool, result.device) for claim in space.claims().values() for result in results_of(claim)]
        assert len(held) >= count
        assert len(held) == len(set(held)), "a device was given to two claims"
        if round_ in (0, _ROUNDS - 1):
            for name in pods:
                space.check_containers(name)
        space.start_deleting(*pods)
    space.wait_gone(*space.pods())
    assert not space.claims(), "every claim must have gone with its pod"
    if stage.can(Ability.RUN_ON_NODE):
        stage.wait_clean()
        for node in stage.nodes:
            assert not read_files(stage.cluster, node).problems
    assert not space.failed_prepares()
