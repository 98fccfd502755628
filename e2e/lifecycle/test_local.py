"""A local cluster leaves nothing: after `down`, after its runner was killed, after a bring-up that was killed half-way.

Nothing else may start or end on the machine meanwhile, or it is taken for the cluster's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from e2e.clusters import programs
from e2e.clusters.interface import ClusterError
from e2e.clusters.local.cluster import LocalCluster, missing_for_local
from e2e.clusters.local.settings import ClusterSettings
from e2e.images import driver, pause, workload
from e2e.kit.waiting import NotYet, eventually
from e2e.lifecycle.traces import Traces

NAME = "lifecycle"
_UP_SECONDS = 180.0
_GONE_SECONDS = 30.0
_RUNNER = f"""
import sys, time
from e2e.clusters.local.cluster import session
with session(name={NAME!r}):
    print("up", flush=True)
    time.sleep(600)
"""

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module", autouse=True)
def ready() -> None:
    """Everything that is built is built before traces are taken."""
    if reason := missing_for_local():
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    programs.ensure([programs.kubernetes(), programs.CONTAINERD, programs.CNI, programs.ETCD, programs.CDI_HOOK])
    for make in (pause.pause_archive, workload.workload_archive, driver.driver_archive):
        make()


@pytest.fixture
def before() -> Iterator[Traces]:
    yield Traces.now()
    LocalCluster.down(NAME)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "e2e.clusters.local", "--name", NAME, *arguments]


def wait_until_nothing_is_left(before: Traces) -> None:
    def look() -> None:
        if left := Traces.now().added_since(before):
            raise NotYet(f"left behind: {left}")

    eventually(look, _GONE_SECONDS)


def test_down_leaves_nothing(before: Traces) -> None:
    subprocess.run(command("up"), check=True, timeout=_UP_SECONDS)
    there = Traces.now().added_since(before)
    assert {"cgroups", "namespaces", "processes"} <= there.keys()
    # Neither a mount nor a link nor a folder of the cluster is seen from outside, even while it runs.
    assert not {"mounts", "links", "settings", "folders"} & there.keys(), there
    subprocess.run(command("down"), check=True, timeout=60)
    wait_until_nothing_is_left(before)
    assert not ClusterSettings(NAME).folder.exists()


def test_a_second_down_has_nothing_to_do(before: Traces) -> None:
    subprocess.run(command("down"), check=True, timeout=60)
    assert Traces.now().added_since(before) == {}


def test_nothing_is_left_when_the_runner_is_killed(before: Traces) -> None:
    with subprocess.Popen([sys.executable, "-c", _RUNNER], stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "up\n"
        runner.send_signal(signal.SIGKILL)
    wait_until_nothing_is_left(before)
    assert LocalCluster.attach(NAME) is None


@pytest.mark.parametrize("seconds", [0.7, 2.5, 6.0])
def test_down_clears_up_after_a_bring_up_that_was_killed(before: Traces, seconds: float) -> None:
    with subprocess.Popen(command("up"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    subprocess.run(command("down"), check=True, timeout=60)
    wait_until_nothing_is_left(before)


def test_another_machine_than_the_one_that_runs_is_refused(before: Traces) -> None:
    """Also: two nodes, and the first minor that is built here."""
    minor = programs.kubernetes_minors()[0]
    cluster = LocalCluster.up(ClusterSettings(NAME, minor, nodes=2))
    assert cluster.nodes == ("node-0", "node-1")
    with pytest.raises(ClusterError, match="is up with other settings"):
        LocalCluster.up(ClusterSettings(NAME, minor, nodes=2, machine="t4"))
    assert LocalCluster.down(NAME) == []
    wait_until_nothing_is_left(before)
