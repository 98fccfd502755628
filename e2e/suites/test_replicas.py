"""GPUs in shares on a real cluster, by the ConfigMap and the limits that NVIDIA's device plugin has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from dra_driver.cli.shares.holding import nodes_of
from dra_driver.cli.shares.reading import read_cluster
from dra_driver.devices.naming import minor_of
from dra_driver.kube.interface import EVENTS, NODES, Obj
from e2e.clusters.interface import Ability
from e2e.kit.expected import DRIVER, Result
from e2e.kit.features import ALL_SHARES, EXTENDED_RESOURCES, SHARES
from e2e.kit.mps_clients import Counting, ask_daemon, client_pod, try_allocating
from e2e.kit.node_sharing import read_sharing
from e2e.kit.replicas import (
    CHANGE_SECONDS,
    FOUR_TIME_SLICES,
    PluginConfig,
    offered,
    plugin_config,
    shares_of,
    sharing_condition,
    wait_shares,
)
from e2e.kit.space import Space, container_ids, halves, names
from e2e.kit.stage import Stage
from e2e.kit.waiting import NotYet, eventually, holds_for
from e2e.kit.workloads import Container, pod

RESOURCE, RENAMED = "nvidia.com/gpu", "nvidia.com/gpu.shared"
NODE_LABEL = "nvidia.com/device-plugin.config"
KEY = "any"
_REPLICAS = 4
# From there on the scheduler goes through the devices of a node in order, so that pods fill one GPU first.
DEVICES_IN_ORDER = (1, 36)

pytestmark = [pytest.mark.simulated, pytest.mark.needs(EXTENDED_RESOURCES), pytest.mark.last(5)]


@pytest.fixture
def four(stage: Stage) -> Iterator[PluginConfig]:
    with plugin_config(stage, {KEY: FOUR_TIME_SLICES}) as config:
        wait_shares(stage.api, _REPLICAS)
        yield config


def sharer(name: str, node: str, *, resource: str = RESOURCE, count: int = 1) -> Obj:
    return pod(name, containers=(Container(limits={resource: str(count)}),), node=node)


def time_slices(replicas: int, **settings: bool) -> str:
    """A configuration of the device plugin."""
    lines = "".join(f"    {name}: {str(value).lower()}\n" for name, value in settings.items())
    resources = f"    resources:\n    - {{name: {RESOURCE}, replicas: {replicas}}}\n"
    return f"version: v1\nsharing:\n  timeSlicing:\n{lines}{resources}"


def gpus_of(space: Space, *pods: str) -> Counter[int]:
    """How many of the pods have each GPU, by its minor."""
    found: list[Result] = []
    for name in pods:
        (result,) = space.devices_of(name)
        found.append(result)
    return Counter(result.minor for result in found)


@pytest.mark.usefixtures("four")
def test_four_pods_run_on_one_gpu(stage: Stage, space: Space) -> None:
    pods = names("sharer", _REPLICAS)
    for batch in halves(pods):
        for name in batch:
            space.pod(sharer(name, stage.nodes[0]))
        space.wait_ready(*batch)
    used = gpus_of(space, *pods)
    if stage.features.has(SHARES) and stage.features.version >= DEVICES_IN_ORDER:
        assert len(used) == 1, f"all on one GPU, they are on {dict(used)}"
    assert max(used.values()) <= _REPLICAS
    for name in pods:
        assert len(space.check_containers(name)["main"].gpus) == 1
    told = [device for node in nodes_of(read_cluster(stage.api, DRIVER, stage.nodes[0])) for device in node.devices]
    held = {minor_of(device.name): len(device.holders) for device in told if device.holders}
    assert held == dict(used), "gpu-dra shares knows who has which"
    assert {pod.name for device in told for holder in device.holders for pod in holder.pods} == set(pods)
    space.delete_pods(*pods)
    assert not space.claims()


@pytest.mark.needs(ALL_SHARES)
@pytest.mark.usefixtures("four")
@pytest.mark.timeout(500, func_only=True)
def test_as_many_pods_run_as_there_are_shares_and_one_more_waits(stage: Stage, space: Space) -> None:
    node = stage.nodes[0]
    total = len(shares_of(offered(stage.api, node)))
    pods = names("sharer", total * _REPLICAS)
    for batch in halves(pods):
        for name in batch:
            space.pod(sharer(name, node))
        space.wait_ready(*batch, timeout=120)
    used = gpus_of(space, *pods)
    assert set(used.values()) == {_REPLICAS}
    assert len(used) == total
    space.pod(sharer("one-more", node))
    space.stays_pending("one-more")
    space.delete_pods(pods[0])
    space.wait_ready("one-more")
    space.check_containers("one-more")


def test_a_changed_config_map_reaches_what_is_free_at_once_and_the_rest_when_it_is(
    stage: Stage, space: Space, four: PluginConfig
) -> None:
    node = stage.nodes[0]
    space.pod(sharer("holder", node))
    before = space.wait_ready("holder")["holder"]
    (held,) = space.devices_of("holder")
    four.change({KEY: time_slices(2)})
    eventually(lambda: check_changed(stage, held, 2), CHANGE_SECONDS)
    assert container_ids(space.pods()["holder"]) == container_ids(before)
    space.pod(sharer("newcomer", node))
    space.wait_ready("newcomer")
    (new,) = space.devices_of("newcomer")
    assert new.minor != held.minor, "a GPU that is to be offered otherwise takes nobody new"
    space.check_containers("holder")
    space.delete_pods("holder")
    wait_shares(stage.api, 2)
    space.delete_pods("newcomer")


def test_a_config_map_that_goes_leaves_the_pods_alone(stage: Stage, space: Space) -> None:
    node = stage.nodes[0]
    with plugin_config(stage, {KEY: FOUR_TIME_SLICES}) as config:
        wait_shares(stage.api, _REPLICAS)
        space.pod(sharer("holder", node))
        before = space.wait_ready("holder")["holder"]
        (held,) = space.devices_of("holder")
        config.change({KEY: "version: v1\n"})
        eventually(lambda: check_changed(stage, held, 1), CHANGE_SECONDS)
        assert container_ids(space.pods()["holder"]) == container_ids(before)
        space.delete_pods("holder")
    assert set(shares_of(offered(stage.api, node)).values()) == {1}


def test_a_broken_config_map_is_told_and_changes_nothing(stage: Stage, four: PluginConfig) -> None:
    node = stage.nodes[0]
    four.change({KEY: time_slices(1)})
    eventually(lambda: check_told(stage, node, "replicas"), CHANGE_SECONDS)
    holds_for(lambda: check_shares(stage, node, _REPLICAS), 2)
    four.change({KEY: FOUR_TIME_SLICES})
    eventually(lambda: check_condition(stage, node, "True"), CHANGE_SECONDS)


def test_a_renamed_resource_is_another_one(stage: Stage, space: Space) -> None:
    node = stage.nodes[0]
    with plugin_config(stage, {KEY: time_slices(2, renameByDefault=True)}):
        wait_shares(stage.api, 2)
        for name in ("first", "second"):
            space.pod(sharer(name, node, resource=RENAMED))
        space.wait_ready("first", "second")
        for name in ("first", "second"):
            assert len(space.check_containers(name)["main"].gpus) == 1
        space.pod(sharer("whole", node))
        space.stays_pending("whole")
        space.delete_pods("first", "second", "whole")


def test_more_than_one_share_may_be_refused(stage: Stage, space: Space) -> None:
    node = stage.nodes[0]
    with plugin_config(stage, {KEY: time_slices(4, failRequestsGreaterThanOne=True)}):
        wait_shares(stage.api, 4)
        space.pod(sharer("two", node, count=2))
        space.pod(sharer("one", node))
        space.wait_ready("one")
        eventually(lambda: check_not_started(space, "two"), 30)
        space.delete_pods("one", "two")


def test_a_nodes_label_chooses_its_configuration(stage: Stage) -> None:
    node = stage.nodes[0]
    with plugin_config(stage, {"two": time_slices(2), "three": time_slices(3)}):
        label(stage, node, "three")
        try:
            wait_shares(stage.api, 3, node=node)
            label(stage, node, "two")
            wait_shares(stage.api, 2, node=node)
        finally:
            label(stage, node, None)
        wait_shares(stage.api, 1, node=node)  # of two keys neither is the default


@pytest.mark.hands(Ability.RUN_ON_NODE)
def test_mps_replicas_have_a_part_of_the_gpu_each(stage: Stage, space: Space) -> None:
    node = stage.nodes[0]
    config = f"version: v1\nsharing:\n  mps:\n    resources:\n    - {{name: {RESOURCE}, replicas: {_REPLICAS}}}\n"
    with plugin_config(stage, {KEY: config}):
        wait_shares(stage.api, _REPLICAS)
        pods = names("sharer", _REPLICAS)
        for name in pods:
            space.pod(client_pod(name, limits={RESOURCE: "1"}, node=node))
        for name in pods:
            Counting.begin(space, name)
            view = space.check_containers(name)["main"]
            assert view.environment["CUDA_MPS_PIPE_DIRECTORY"] == "/tmp/nvidia-mps"
        used = gpus_of(space, *pods)
        assert len(read_sharing(stage.cluster, node).daemons) == len(used), "one daemon for each GPU"
        assert float(ask_daemon(space, pods[0], "get_default_active_thread_percentage")) == 100 / _REPLICAS
        assert "OUT_OF_MEMORY" in try_allocating(space, pods[0], "40G")
        space.delete_pods(*pods)
        eventually(lambda: check_nothing_left(stage, node), 30)


def check_nothing_left(stage: Stage, node: str) -> None:
    if left := read_sharing(stage.cluster, node).left_behind(()):
        raise NotYet(f"left on {node}: {left}")


def check_changed(stage: Stage, held: Result, count: int) -> None:
    """All GPUs are offered in ``count`` shares, but for the one that is held, which is tainted."""
    found = offered(stage.api, held.pool)
    mine = held.device.partition("-replica-")[0]
    others = {gpu: shares for (_, gpu), shares in shares_of(found).items() if gpu != mine}
    if set(others.values()) != {count}:
        raise NotYet(f"{count} shares of each GPU but {mine} are wanted, there are {others}")
    if not any(each.tainted for each in found if each.device.partition("-replica-")[0] == mine):
        raise NotYet(f"{mine} is held and not tainted")


def check_shares(stage: Stage, node: str, count: int) -> None:
    assert set(shares_of(offered(stage.api, node)).values()) == {count}


def check_condition(stage: Stage, node: str, status: str) -> str:
    condition = sharing_condition(stage.api, node)
    if condition is None or condition["status"] != status:
        raise NotYet(f"SharingConfigured is to be {status}: {condition}")
    return str(condition["message"])


def check_told(stage: Stage, node: str, word: str) -> None:
    """By the condition, and by an Event about the node or its inventory."""
    message = check_condition(stage, node, "False")
    if word not in message:
        raise NotYet(f"the condition says nothing of {word}: {message}")
    events = [str(event.get("message")) for event in stage.api.list(EVENTS).items]
    if not any(KEY in said and word in said for said in events):
        raise NotYet(f"no Event says what is wrong with key {KEY}")


def check_not_started(space: Space, name: str) -> None:
    """By the scheduler, or by the driver when it is prepared."""
    found = space.pods()[name]
    assert found["status"].get("phase") == "Pending", f"{name} was to be refused"
    conditions = found["status"].get("conditions") or ()
    unschedulable = any(each["type"] == "PodScheduled" and each["status"] == "False" for each in conditions)
    if not unschedulable and not space.failed_prepares():
        raise NotYet(f"nothing is said about {name}")


def label(stage: Stage, node: str, value: str | None) -> None:
    stage.api.patch(NODES, node, {"metadata": {"labels": {NODE_LABEL: value}}})
