"""MPS on a real node: what a container gets, what is on the node meanwhile, who is refused, and what is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.claim_config import SharingStrategy
from dra_driver.kube.interface import EVENTS, Obj
from dra_driver.mps.group import folders_of
from e2e.clusters.interface import Ability
from e2e.kit.driver_pods import STATE
from e2e.kit.features import DEVICE_TAINTS, HEALTH, PARTITIONS
from e2e.kit.mps_clients import Counting, ask_daemon, client_pod, try_allocating
from e2e.kit.node_sharing import EXCLUSIVE_PROCESS, PLUGIN_FOLDER, NodeSharing, read_sharing
from e2e.kit.pools import Gpu, free_gpus, gpus, profiles
from e2e.kit.space import Space
from e2e.kit.stage import SETTINGS, Stage
from e2e.kit.views import View
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import MIG_CLASS, Use, claim_spec, exactly, is_profile, only_uuid, pod, shared
from e2e.suites.test_health import wait_health
from e2e.suites.test_time_slicing import check_told

HALF = {"defaultActiveThreadPercentage": 50, "defaultPinnedDeviceMemoryLimit": "10Gi"}
_CLEAN_SECONDS = 30.0
_NOTICE_SECONDS = 10.0

pytestmark = [pytest.mark.simulated, pytest.mark.hands(Ability.RUN_ON_NODE)]


def by_mps(gpu: Gpu, settings: Obj | None = None) -> Obj:
    return claim_spec(exactly(selectors=[only_uuid(gpu.uuid)]), config=[shared(SharingStrategy.MPS, settings or HALF)])


def the_group(stage: Stage, space: Space, claim: str, node: str) -> tuple[str, NodeSharing]:
    """The one group of a claim's own, and the node with it."""
    uid = space.claims()[claim]["metadata"]["uid"]
    found = read_sharing(stage.cluster, node)
    (group,) = (each for each in found.groups if each.startswith(uid))
    return group, found


def check_contract(view: View, group: str) -> None:
    """What NVIDIA's driver gives a container (its cmd/gpu-kubelet-plugin/sharing.go)."""
    folders = folders_of(PLUGIN_FOLDER, group)
    assert view.environment["CUDA_MPS_PIPE_DIRECTORY"] == "/tmp/nvidia-mps"
    pipe, shm = view.mounts["/tmp/nvidia-mps"], view.mounts["/dev/shm"]
    assert pipe.root.endswith(f"/mps/{group}/{folders.pipe.name}"), pipe
    assert (shm.root, shm.kind) == ("/", "tmpfs"), shm
    assert {"rw", "nosuid", "nodev"} <= pipe.options & shm.options


def wait_nothing_left(stage: Stage, node: str) -> None:
    """No daemon, server, folder, tmpfs, compute mode."""

    def look() -> None:
        if left := read_sharing(stage.cluster, node).left_behind(()):
            raise NotYet(f"left on {node}: {left}")

    eventually(look, _CLEAN_SECONDS)


def test_two_pods_on_one_gpu(stage: Stage, space: Space) -> None:
    gpu = free_gpus(stage.api)[0]
    space.claim("shared", by_mps(gpu))
    for name in ("first", "second"):
        space.pod(client_pod(name, Use(claim="shared")))
    counting = [Counting.begin(space, name) for name in ("first", "second")]
    group, node = the_group(stage, space, "shared", gpu.pool)
    assert node.tmpfs == {str(folders_of(PLUGIN_FOLDER, group).shm)}
    assert len(node.daemons) == 1
    assert node.modes == {gpu.uuid: EXCLUSIVE_PROCESS}
    for name in ("first", "second"):
        check_contract(space.check_containers(name)["main"], group)
    assert float(ask_daemon(space, "first", "get_default_active_thread_percentage")) == 50
    assert not try_allocating(space, "first", "9G")
    assert "OUT_OF_MEMORY" in try_allocating(space, "second", "11G")
    for each in counting:
        each.check_goes_on()
    space.delete_pods("first")
    counting[1].check_goes_on()
    space.delete_pods("second")
    wait_nothing_left(stage, gpu.pool)


def test_limits_for_each_of_two_gpus(stage: Stage, space: Space) -> None:
    first, second = sorted(free_gpus(stage.api, stage.nodes[0])[:2], key=lambda gpu: gpu.uuid)
    both = " || ".join(only_uuid(gpu.uuid) for gpu in (first, second))
    settings = {"defaultPinnedDeviceMemoryLimit": "4Gi", "defaultPerDevicePinnedMemoryLimit": {"0": "8Gi"}}
    config = [shared(SharingStrategy.MPS, settings)]
    space.claim("two", claim_spec(exactly(count=2, selectors=[both]), config=config))
    space.pod(client_pod("two", Use(claim="two")))
    Counting.begin(space, "two")
    group, node = the_group(stage, space, "two", first.pool)
    assert len(node.daemons) == 1, "one daemon for both"
    assert node.modes == {gpu.uuid: EXCLUSIVE_PROCESS for gpu in (first, second)}
    check_contract(space.check_containers("two")["main"], group)
    limits = [ask_daemon(space, "two", f"get_default_device_pinned_mem_limit {index}") for index in (0, 1)]
    assert ["8" in limits[0], "4" in limits[1]] == [True, True], limits
    space.delete_pods("two")
    wait_nothing_left(stage, first.pool)


@pytest.mark.needs(PARTITIONS)
def test_inside_of_a_mig_device(stage: Stage, space: Space) -> None:
    profile = "3g.40gb"
    if profile not in profiles(stage.api):
        pytest.skip(f"no GPU here is partitioned on demand into {profile}: MACHINE=h100-sxm5-80gb")
    request = exactly("mig", device_class=MIG_CLASS, selectors=[is_profile(profile)])
    config = shared(SharingStrategy.MPS, {"defaultPinnedDeviceMemoryLimit": "16Gi"}, kind="MigDeviceConfig")
    space.claim("part", claim_spec(request, config=[config]))
    for name in ("first", "second"):
        space.pod(client_pod(name, Use(claim="part")))
    for name in ("first", "second"):
        Counting.begin(space, name)
    (device,) = space.devices_of("first")
    group, node = the_group(stage, space, "part", device.pool)
    assert not node.modes, "the compute mode of the GPU is left alone"
    for name in ("first", "second"):
        check_contract(space.check_containers(name)["main"], group)
    assert "OUT_OF_MEMORY" in try_allocating(space, "first", "17G")
    space.delete_pods("first", "second")
    wait_nothing_left(stage, device.pool)


def test_pipes_of_the_host_are_not_given_to_anybody(stage: Stage, space: Space) -> None:
    """A driver root may have /tmp/nvidia-mps from a daemon of the host, or from one that is long gone."""
    gpu = free_gpus(stage.api)[0]
    stale = f"{STATE.rpartition('/')[0]}/host/tmp/nvidia-mps"
    stage.cluster.run_on_node(gpu.pool, ["mkdir", "-p", stale])
    try:
        space.claim("plain", claim_spec(exactly(selectors=[only_uuid(gpu.uuid)])))
        space.pod(pod("plain", Use(claim="plain")))
        space.wait_ready("plain")
        view = space.check_containers("plain")["main"]
        assert "/tmp/nvidia-mps" not in view.mounts
        assert "CUDA_MPS_PIPE_DIRECTORY" not in view.environment
    finally:
        stage.cluster.run_on_node(gpu.pool, ["rmdir", stale])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"defaultActiveThreadPercentage": 101}, ("sharing.mpsConfig.defaultActiveThreadPercentage", "100")),
        ({"defaultPinnedDeviceMemoryLimit": "1Ki"}, ("defaultPinnedDeviceMemoryLimit", "1Mi")),
        ({"defaultPinnedDeviceMemoryLimit": "1Ti"}, ("defaultPinnedDeviceMemoryLimit", "ask for 1Mi to")),
        ({"defaultPerDevicePinnedMemoryLimit": {"7": "1Gi"}}, ('defaultPerDevicePinnedMemoryLimit["7"]', '"0"')),
    ],
    ids=["percentage", "too-little", "too-much", "no-such-index"],
)
def test_what_cannot_be_had_is_told_and_changes_nothing(
    stage: Stage, space: Space, settings: Obj, words: tuple[str, ...]
) -> None:
    gpu = free_gpus(stage.api)[0]
    space.claim("wrong", by_mps(gpu, settings))
    space.pod(pod("refused", Use(claim="wrong")))
    eventually(lambda: check_told(space, *words), 30)
    assert not read_sharing(stage.cluster, gpu.pool).left_behind(())


@pytest.fixture
def lonely(stage: Stage, space: Space) -> Iterator[tuple[Gpu, Counting]]:
    """One pod with a client on one GPU."""
    gpu = free_gpus(stage.api)[0]
    # The kubelet of 1.34 reports health only where the pod's entry has the claim's own name (its manager.go).
    space.claim("gpu", by_mps(gpu))
    space.pod(client_pod("client", Use(claim="gpu", entry="gpu")))
    yield gpu, Counting.begin(space, "client")
    space.delete_pods("client")
    wait_nothing_left(stage, gpu.pool)


@pytest.mark.needs(DEVICE_TAINTS)
def test_a_daemon_that_is_killed_is_told_everywhere(stage: Stage, space: Space, lonely: tuple[Gpu, Counting]) -> None:
    gpu, _ = lonely
    if stage.features.has(HEALTH):
        wait_health(space, "client", "Healthy")
    (daemon,) = read_sharing(stage.cluster, gpu.pool).daemons
    stage.cluster.run_on_node(gpu.pool, ["kill", "-9", str(daemon)])
    eventually(lambda: check_event(stage, space, "MpsDaemonDied"), _NOTICE_SECONDS)
    wait_taint(stage, gpu, tainted=True)
    if stage.features.has(HEALTH):
        wait_health(space, "client", "Unhealthy")
    space.delete_pods("client")
    wait_nothing_left(stage, gpu.pool)
    wait_taint(stage, gpu, tainted=False)


@pytest.mark.own_install
@pytest.mark.last(36)
@pytest.mark.timeout(500, func_only=True)
def test_without_a_supervisor_it_is_said_what_is_missing(stage: Stage, space: Space) -> None:
    stage.driver.install([*SETTINGS, "mpsSupervisor.enabled=false"])
    try:
        gpu = free_gpus(stage.api)[0]
        space.claim("shared", by_mps(gpu))
        space.pod(client_pod("waits", Use(claim="shared")))
        eventually(lambda: check_told(space, "mpsSupervisor.enabled=true"), 60)
        assert gpu.uuid not in read_sharing(stage.cluster, gpu.pool).modes
    finally:
        stage.install_driver()
    Counting.begin(space, "waits")


def check_event(stage: Stage, space: Space, reason: str) -> None:
    """About the claim or its pod."""
    events = stage.api.list(EVENTS, space.namespace).items
    if not any(event.get("reason") == reason for event in events):
        raise NotYet(f"no Event {reason}; there are {sorted({str(event.get('reason')) for event in events})}")


def wait_taint(stage: Stage, gpu: Gpu, *, tainted: bool) -> None:
    def look() -> None:
        (found,) = (each for each in gpus(stage.api, gpu.pool) if each.name == gpu.name)
        if found.tainted is not tainted:
            raise NotYet(f"{gpu.name} is {'not ' if tainted else ''}tainted")

    eventually(look, _NOTICE_SECONDS)
