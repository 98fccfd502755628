"""gpu-dra shares on what the controller publishes: a ConfigMap of replicas, pods, a change while they run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dra_driver.cli.main import app
from dra_driver.cli.shares.holding import nodes_of
from dra_driver.cli.shares.reading import read_cluster
from dra_driver.cli.shares.use import NodeUse
from dra_driver.hardware.model import Machine
from dra_driver.simulation.apiserver.server import ApiServer
from tests.cli.shares.world import cells, row, table
from tests.controller.conftest import a100 as a100
from tests.controller.sharing_cluster import FOUR, MPS, TWO, Cluster
from tests.controller.test_sharing_scheduled import Pods
from tests.controller.world import DRIVER, World


@pytest.fixture(params=[frozenset[str](), frozenset({"DRAConsumableCapacity"})], ids=["shares", "replicas"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(features_off=request.param)
    try:
        yield world
    finally:
        world.close()


def uses(world: World) -> tuple[NodeUse, ...]:
    return nodes_of(read_cluster(world.api, DRIVER, None))


def test_pods_on_shares_and_a_change_while_they_run(world: World, a100: Machine) -> None:
    world.add_node("n1", a100)
    cluster, pods = Cluster(world), Pods(world)
    pods.make_ready("n1")
    cluster.apply(any=FOUR)
    controller = cluster.start()
    world.wait(lambda: world.slices("n1"))
    world.wait(lambda: [use.uses[-1].value.value() for use in uses(world)[0].devices] == [4] * 8)
    names = [f"p{number}" for number in range(6)]
    pods.create(*names)
    pods.settle()
    assert pods.running(*names) == names
    nodes = uses(world)
    assert [line[-1] for line in cells(nodes, "gpu-0")] == [f"demo/p{number} (1 share)" for number in range(4)]
    assert cells(nodes, "gpu-0")[0][:4] == ["TimeSlicing", "4/4 shares", "-", "-"]
    assert cells(nodes, "gpu-1")[0][:3] == ["TimeSlicing", "2/4 shares", "2 shares"]
    assert cells(nodes, "gpu-7")[0][1:3] == ["0/4 shares", "4 shares"]
    world.wait(lambda: controller.inputs.in_use("n1") == set(pods.holders()), "the controller to know of all claims")
    cluster.apply(any=TWO)
    draining = ["TimeSlicing", "2/4 shares", "-", "none: draining"]
    world.wait(lambda: cells(uses(world), "gpu-1")[0][:4] == draining, f"{draining} of gpu-1")
    world.wait(lambda: "n1: gpu-0, gpu-1: draining: " in table(uses(world)), "a note about both GPUs")
    world.wait(lambda: row(uses(world), "gpu-7").uses[-1].value.value() == 2)
    pods.finish("p4", "p5")
    world.wait(lambda: row(uses(world), "gpu-1").uses[-1].value.value() == 2)
    assert cells(uses(world), "gpu-1")[0][1:3] == ["0/2 shares", "2 shares"]


def test_as_a_user_runs_it(world: World, a100: Machine, tmp_path: Path) -> None:
    world.add_node("n1", a100)
    cluster, pods = Cluster(world), Pods(world)
    pods.make_ready("n1")
    cluster.apply(any=FOUR)
    cluster.start()
    world.wait(lambda: world.slices("n1"))
    pods.create("p")
    pods.settle()
    server, kubeconfig = ApiServer(world.api), tmp_path / "kubeconfig"
    server.start()
    try:
        server.write_kubeconfig(kubeconfig)
        result = CliRunner().invoke(app, ["shares", "--kubeconfig", str(kubeconfig)])
    finally:
        server.stop()
    assert result.exit_code == 0, result.output
    first = re.split(r" {2,}", result.stdout.splitlines()[1])
    assert first[:5] == ["n1", "gpu-0", "TimeSlicing", "1/4 shares", "3 shares"]
    assert first[-1] == "demo/p (1 share)"


def test_mps_replicas(world: World, a100: Machine) -> None:
    world.add_node("n1", a100)
    cluster = Cluster(world)
    cluster.apply(any=MPS)
    cluster.start()
    world.wait(lambda: world.slices("n1"))
    world.wait(lambda: {device.shared_by for device in uses(world)[0].devices} == {"MPS"})
    assert cells(uses(world), "gpu-0")[0][:2] == ["MPS", "0/4 shares"]
