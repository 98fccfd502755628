"""Fractions on nodes with a newer driver: an MPS namespace for each share, and the driver's own limit of memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from api.fractions import SharingBackend
from dra_driver.cli.manifests import in_order, load
from e2e.clusters.interface import Ability
from e2e.kit.features import SHARES
from e2e.kit.fractions import VALUES, check_a_hundred, check_held, fraction, offering_fractions, wait_told
from e2e.kit.manifests import try_manifests
from e2e.kit.mps_clients import client_pod, try_allocating
from e2e.kit.pools import driver_slices, gpus
from e2e.kit.space import Space
from e2e.kit.stage import SETTINGS, Stage
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import Use, only_uuid

EXAMPLES = VALUES.parents[1] / "fractions"
OLD, NEW = "580.105.08", "615.71.09"
NAMESPACE, CGROUP = SharingBackend.MPS_NAMESPACE, SharingBackend.CGROUP

pytestmark = [
    pytest.mark.own_install,
    pytest.mark.needs(SHARES),
    pytest.mark.hands(Ability.RUN_ON_NODE),
    pytest.mark.simulated,
    pytest.mark.last(36),
]


@pytest.fixture(scope="module")
def newer_driver(session_stage: Stage) -> Iterator[None]:
    if not session_stage.features.has(SHARES):
        pytest.skip("the server has no consumable capacity")
    replace_driver(session_stage, NEW)
    try:
        yield
    finally:
        replace_driver(session_stage, OLD)


def replace_driver(stage: Stage, version: str) -> None:
    """A plugin ends when its driver was replaced, and comes again."""
    for node in stage.nodes:
        stage.pods.replace_driver(node, version)
    stage.driver.wait()


@pytest.fixture(scope="module", params=[NAMESPACE, CGROUP], ids=str)
def backend(session_stage: Stage, newer_driver: None, request: pytest.FixtureRequest) -> Iterator[SharingBackend]:
    """What fences fractions meanwhile, as the strongest that nodes have."""
    wanted: SharingBackend = request.param
    settings = [*SETTINGS, *(cgroups_of(session_stage) if wanted is CGROUP else ())]
    with offering_fractions(session_stage, settings, wanted):
        yield wanted


def cgroups_of(stage: Stage) -> Sequence[str]:
    """Where nodes limit memory: cgroup v2, or a hierarchy of v1 that stands in for it."""
    look = "test -e /sys/fs/cgroup/cgroup.controllers && echo v2 || true"
    if "v2" in stage.cluster.run_on_node(stage.nodes[0], ["sh", "-c", look]):
        return ("simulated.cgroups.root=/sys/fs/cgroup",)
    return ("simulated.cgroups.root=/sys/fs/cgroup/memory", "simulated.cgroups.standsIn=memory")


def test_a_container_is_held_to_its_fraction(stage: Stage, backend: SharingBackend, space: Space) -> None:
    told = check_held(stage, space)
    enforcement = "Enforced" if backend is CGROUP else "Cooperative"
    assert (told["data"]["backend"], told["data"]["enforcement"]) == (backend, enforcement)


def test_the_daemons_own_socket_is_not_in_the_container(stage: Stage, backend: SharingBackend, space: Space) -> None:
    """Whoever reaches it changes everybody's limits."""
    space.claim("part", fraction("2Gi", "10"))
    space.pod(client_pod("part", Use(claim="part"), node=stage.nodes[0]))
    space.wait_ready("part")
    mounts = space.look("part").mounts
    assert "ro" in mounts["/tmp/nvidia-mps"].options
    command = (
        "timeout 5 nvidia-cuda-mps-control server list 2>&1; timeout 5 nvidia-cuda-mps-control namespace list 2>&1"
    )
    said = stage.kubectl.execute(space.namespace, "part", "main", ["sh", "-c", f"{command}; true"])
    assert "gpus" not in said, said


def test_a_process_that_forgets_its_variables(stage: Stage, backend: SharingBackend, space: Space) -> None:
    """Only the driver's limit holds it."""
    uuid = gpus(stage.api, stage.nodes[0])[0].uuid
    space.claim("part", fraction("4Gi", "10", selectors=[only_uuid(uuid)]))
    space.pod(client_pod("part", Use(claim="part"), node=stage.nodes[0]))
    space.wait_ready("part")
    unseen = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=GPU-00000000-0000-0000-0000-000000000000=1M"
    said = try_allocating(space, "part", "5G", variables=[unseen])
    assert ("CUDA_ERROR_OUT_OF_MEMORY" in said) == (backend is CGROUP), said


def test_a_fence_that_has_gone_is_told(stage: Stage, backend: SharingBackend, space: Space) -> None:
    if backend is not CGROUP:
        pytest.skip("an MPS namespace that is not as it should be is put right by the supervisor")
    node = stage.nodes[0]
    first = gpus(stage.api, node)[0]
    space.claim("part", fraction("2Gi", selectors=[only_uuid(first.uuid)]))
    space.pod(client_pod("part", Use(claim="part"), node=node))
    space.wait_ready("part")
    wait_told(space, "part")
    stage.pods.forget_memory_limits(node)
    condition = wait_told(space, "part", "False")["conditions"][0]
    assert (condition["reason"], "memory limit of cgroup" in condition["message"]) == ("FenceGone", True)
    eventually(lambda: check_tainted(stage, first.name, tainted=True), 30)
    space.delete_pods("part")
    space.delete_claim("part")
    eventually(lambda: check_tainted(stage, first.name, tainted=False), 60)


def check_tainted(stage: Stage, name: str, *, tainted: bool) -> None:
    devices = (device for each in driver_slices(stage.api) for device in each["spec"].get("devices") or ())
    keys = {taint["key"] for device in devices if device["name"] == name for taint in device.get("taints") or ()}
    if ("gpu.nvidia.com/fence-gone" in keys) != tainted:
        raise NotYet(f"taints of {name} are {sorted(keys)}")


def test_what_is_guaranteed_and_what_may_be_had(stage: Stage, backend: SharingBackend, space: Space) -> None:
    """The elastic example; it waits where two values cannot be had."""
    leaving: list[Space] = []
    try:
        try_manifests(stage, in_order(load([EXAMPLES / "04-elastic.yaml"])), leaving)
        try_manifests(stage, in_order(load([EXAMPLES / "03-only-where-it-is-enforced.yaml"])), leaving)
    finally:
        for each in leaving:
            each.close()
    if backend is not CGROUP:
        return
    space.claim("elastic", fraction("2Gi", config={"memoryLimit": "6Gi"}))
    space.pod(client_pod("elastic", Use(claim="elastic"), node=stage.nodes[0]))
    space.wait_ready("elastic")
    assert try_allocating(space, "elastic", "5G") == ""
    assert "CUDA_ERROR_OUT_OF_MEMORY" in try_allocating(space, "elastic", "7G")
    assert wait_told(space, "elastic")["data"]["memoryLimitBytes"] == 6 * 2**30


@pytest.mark.timeout(300, func_only=True)
def test_a_hundred_shares(stage: Stage, backend: SharingBackend, space: Space) -> None:
    check_a_hundred(stage, space)
