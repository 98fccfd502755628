"""One claim, several pods."""

from __future__ import annotations

from dra_driver.kube.interface import RESOURCE_CLAIMS
from e2e.clusters.interface import Ability
from e2e.kit.node_files import read_files
from e2e.kit.space import Space, names
from e2e.kit.stage import Stage
from e2e.kit.workloads import Use, claim_spec, pod

_SHARERS = 15


def test_two_pods_on_one_claim(space: Space) -> None:
    space.claim("shared", claim_spec())
    for name in ("first", "second"):
        space.pod(pod(name, Use(claim="shared")))
    space.wait_ready("first", "second")
    seen = [space.check_containers(name)["main"].gpus for name in ("first", "second")]
    assert seen[0] == seen[1]
    space.delete_pods("first")
    assert space.check_containers("second")["main"].gpus == seen[0], "the claim is the second pod's as well"
    space.delete_pods("second")
    space.wait_claim_free("shared")


def test_fifteen_pods_on_one_claim(stage: Stage, space: Space) -> None:
    space.claim("shared", claim_spec())
    pods = names("sharer", _SHARERS)
    for name in pods:
        space.pod(pod(name, Use(claim="shared")))
    ready = space.wait_ready(*pods)
    claim = space.api.get(RESOURCE_CLAIMS, "shared", space.namespace)
    assert {user["name"] for user in claim["status"]["reservedFor"]} == set(pods)
    assert len({pod["spec"]["nodeName"] for pod in ready.values()}) == 1
    for name in (pods[0], pods[-1]):
        assert len(space.check_containers(name)["main"].gpus) == 1
    if stage.can(Ability.RUN_ON_NODE):
        files = read_files(stage.cluster, ready[pods[0]]["spec"]["nodeName"])
        assert claim["metadata"]["uid"] in files.cdi & files.checkpoint
    space.delete_pods(*pods)
    space.wait_claim_free("shared")
    stage.wait_clean()
