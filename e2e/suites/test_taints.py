"""Taints on devices, set by an administrator's DeviceTaintRule."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from dra_driver.kube.interface import Obj
from e2e.kit.expected import DRIVER
from e2e.kit.features import TAINT_RULES
from e2e.kit.pools import Gpu, free_gpus
from e2e.kit.space import Space, container_ids, unique_name
from e2e.kit.stage import Stage
from e2e.kit.workloads import Use, claim_spec, exactly, only_uuid, pod

pytestmark = pytest.mark.needs(TAINT_RULES)

_KEY = "e2e.gpu-dra.dev/maintenance"
_TOLERATION: Obj = {"key": _KEY, "operator": "Exists"}


def test_no_schedule_keeps_pods_off_and_lets_others_run(stage: Stage, space: Space) -> None:
    gpu = free_gpus(stage.api)[-1]
    that = exactly(selectors=[only_uuid(gpu.uuid)])
    space.template("that", claim_spec(that))
    space.template(
        "tolerant",
        claim_spec(exactly(selectors=[only_uuid(gpu.uuid)], tolerations=[{**_TOLERATION, "effect": "NoSchedule"}])),
    )
    space.pod(pod("runs", Use(template="that")))
    runs = space.wait_ready("runs")["runs"]
    with tainted(stage, gpu, "NoSchedule"):
        # It waits for the device first, and for the end of the taint once the device is free.
        space.pod(pod("waits", Use(template="that")))
        space.stays_pending("waits")
        assert container_ids(space.pods()["runs"]) == container_ids(runs)
        space.delete_pods("runs")
        space.stays_pending("waits")
        space.pod(pod("tolerant", Use(template="tolerant")))
        space.wait_ready("tolerant")
        space.check_containers("tolerant")
        space.delete_pods("tolerant")
        space.stays_pending("waits")
    space.wait_ready("waits")


def test_no_execute_evicts(stage: Stage, space: Space) -> None:
    gpu, other = free_gpus(stage.api)[:2]
    for name, chosen in (("victim", gpu), ("bystander", other)):
        space.claim(name, claim_spec(exactly(selectors=[only_uuid(chosen.uuid)])))
        space.pod(pod(name, Use(claim=name)))
    before = space.wait_ready("victim", "bystander")
    with tainted(stage, gpu, "NoExecute"):
        space.wait_gone("victim", timeout=30)
        space.wait_claim_free("victim")
        assert container_ids(space.pods()["bystander"]) == container_ids(before["bystander"])
    space.pod(pod("after", Use(claim="victim")))
    space.wait_ready("after")
    space.check_containers("after")


@contextlib.contextmanager
def tainted(stage: Stage, gpu: Gpu, effect: str) -> Iterator[None]:
    rule = stage.features.taint_rule
    assert rule is not None
    name = unique_name("taint")
    spec = {
        "deviceSelector": {"driver": DRIVER, "pool": gpu.pool, "device": gpu.name},
        "taint": {"key": _KEY, "effect": effect},
    }
    stage.api.create(rule, {"metadata": {"name": name}, "spec": spec})
    try:
        yield
    finally:
        stage.api.delete(rule, name)
