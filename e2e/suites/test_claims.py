"""Claims in their forms: by template, by hand, several devices, several containers, admin access."""

from __future__ import annotations

import pytest

from dra_driver.kube.interface import Invalid
from e2e.clusters.interface import Ability
from e2e.kit.features import ADMIN_ACCESS
from e2e.kit.node_files import read_cdi_file
from e2e.kit.pools import gpus
from e2e.kit.space import Space, container_ids, unique_name
from e2e.kit.stage import Stage
from e2e.kit.workloads import Container, Use, claim_spec, exactly, pod

ADMIN_LABEL = {"resource.kubernetes.io/admin-access": "true"}


def test_pod_by_template(space: Space) -> None:
    space.template("one", claim_spec())
    space.pod(pod("one", Use(template="one")))
    space.wait_ready("one")
    assert len(space.devices_of("one")) == 1
    space.check_containers("one")
    space.delete_pods("one")
    assert not space.claims(), "the claim of a template must go with its pod"


def test_pod_by_claim_leaves_the_claim_free(space: Space) -> None:
    space.claim("mine", claim_spec())
    space.pod(pod("first", Use(claim="mine")))
    space.wait_ready("first")
    space.check_containers("first")
    space.delete_pods("first")
    space.wait_claim_free("mine")
    space.pod(pod("second", Use(claim="mine")))
    space.wait_ready("second")
    space.check_containers("second")


def test_two_containers_share_the_claim(space: Space) -> None:
    space.template("one", claim_spec())
    space.pod(pod("both", Use(template="one"), containers=(Container("train"), Container("profile"))))
    space.wait_ready("both")
    seen = space.check_containers("both")
    assert seen["train"].gpus == seen["profile"].gpus
    assert len(seen["train"].gpus) == 1


def test_a_container_without_a_claim_sees_no_gpu(space: Space) -> None:
    space.template("one", claim_spec())
    space.pod(pod("mixed", Use(template="one"), containers=(Container("with"), Container("without", claims=()))))
    space.wait_ready("mixed")
    seen = space.check_containers("mixed")
    assert len(seen["with"].gpus) == 1
    assert not seen["without"].gpus
    assert not [name for name in seen["without"].devices if name.startswith("nvidia")]


def test_each_container_sees_its_own_request(space: Space) -> None:
    space.template("two", claim_spec(exactly("a"), exactly("b")))
    containers = (Container("first", claims=("gpu/a",)), Container("second", claims=("gpu/b",)))
    space.pod(pod("split", Use(template="two"), containers=containers))
    space.wait_ready("split")
    seen = space.check_containers("split")
    assert len(seen["first"].gpus) == len(seen["second"].gpus) == 1
    assert seen["first"].gpus != seen["second"].gpus


def test_two_claims_of_one_pod(space: Space) -> None:
    space.template("one", claim_spec())
    space.claim("mine", claim_spec())
    containers = (Container("left", claims=("left",)), Container("right", claims=("right",)), Container("all"))
    uses = (Use(template="one", entry="left"), Use(claim="mine", entry="right"))
    space.pod(pod("pair", *uses, containers=containers))
    space.wait_ready("pair")
    seen = space.check_containers("pair")
    assert seen["left"].gpus | seen["right"].gpus == seen["all"].gpus
    assert len(seen["all"].gpus) == 2


def test_two_devices_of_one_request(space: Space) -> None:
    space.template("two", claim_spec(exactly(count=2)))
    space.pod(pod("two", Use(template="two")))
    space.wait_ready("two")
    assert len(space.check_containers("two")["main"].gpus) == 2


@pytest.mark.needs(ADMIN_ACCESS)
def test_admin_access_neither_frees_nor_changes(stage: Stage, space: Space) -> None:
    space.claim("mine", claim_spec())
    before = space.pod(pod("owner", Use(claim="mine")))
    before = space.wait_ready("owner")["owner"]
    claim = space.claims()["mine"]
    node = before["spec"]["nodeName"]
    file = cdi_file(stage, node, claim["metadata"]["uid"])
    with stage.space(unique_name("admin"), ADMIN_LABEL) as admins:
        admins.template("all", claim_spec(exactly(everything=True, admin=True)))
        admins.pod(pod("monitor", Use(template="all"), node=node))
        admins.wait_ready("monitor")
        seen = admins.check_containers("monitor")["main"].gpus
        assert seen == {int(gpu.name.removeprefix("gpu-").partition("-")[0]) for gpu in gpus(stage.api, node)}
        admins.delete_pods("monitor")
    assert space.claims()["mine"]["status"] == claim["status"]
    assert cdi_file(stage, node, claim["metadata"]["uid"]) == file
    after = space.pods()["owner"]
    assert container_ids(after) == container_ids(before)
    space.check_containers("owner")


@pytest.mark.needs(ADMIN_ACCESS)
def test_admin_access_needs_the_namespace_label(space: Space) -> None:
    with pytest.raises(Invalid, match="admin-access"):
        space.claim("all", claim_spec(exactly(everything=True, admin=True)))


def cdi_file(stage: Stage, node: str, uid: str) -> str:
    """Its content; empty where nodes cannot be looked into."""
    return read_cdi_file(stage.cluster, node, uid) if stage.can(Ability.RUN_ON_NODE) else ""
