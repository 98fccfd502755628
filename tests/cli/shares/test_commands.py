"""gpu-dra shares over HTTP against the embedded API server, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dra_driver.cli.main import app
from dra_driver.cli.shares.commands import follow
from dra_driver.cli.shares.holding import nodes_of
from dra_driver.cli.shares.reading import read_cluster
from dra_driver.cli.shares.use import NodeUse
from dra_driver.cli.shares.watching import Watching
from dra_driver.kube.interface import NAMESPACES, PODS, RESOURCE_CLAIMS, RESOURCE_SLICES, Obj
from dra_driver.simulation.store import EmbeddedApi
from tests.cli.mig.world import DRIVER, claim, gpus, slices
from tests.cli.served import served
from tests.cli.shares.world import ONE, TIME_SLICING, rule, share, sharing, tainted

runner = CliRunner()
FOUR = sharing(rule(TIME_SLICING, 4))


def create_claim(api: EmbeddedApi, held: Obj, *pods: str) -> None:
    """The claim with its status; its pods exist and have the UIDs that the server gave them."""
    name = held["metadata"]["name"]
    created = [
        api.create(
            PODS,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": pod, "namespace": "ml"},
                "spec": {"containers": [{"name": "main", "image": "busybox"}]},
            },
        )
        for pod in pods
    ]
    reserved = [{"resource": "pods", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]} for pod in created]
    api.create(RESOURCE_CLAIMS, {key: value for key, value in held.items() if key != "status"})
    status = {**held["status"], "reservedFor": reserved}
    api.patch(RESOURCE_CLAIMS, name, {"status": status}, namespace="ml", subresource="status")


@pytest.fixture
def api() -> EmbeddedApi:
    """A node with a shared GPU, of which two shares are held, one that drains, and one that is not shared."""
    api = EmbeddedApi()
    api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}})
    published = slices("n0", gpus("t4", 2), FOUR)
    tainted(published, "gpu-1", "gpu.nvidia.com/unavailable")
    for entry in [*published, *slices("n1", gpus("t4", 1))]:
        api.create(RESOURCE_SLICES, entry)
    create_claim(api, share("a", "gpu-0", ONE, ONE), "train")
    create_claim(api, claim("w", "n1", "gpu-0"), "whole")
    return api


@pytest.fixture
def kubeconfig(api: EmbeddedApi, tmp_path: Path) -> Iterator[Path]:
    with served(api, tmp_path) as kubeconfig:
        yield kubeconfig


def shares(kubeconfig: Path, *arguments: str, code: int = 0) -> str:
    result = runner.invoke(app, ["shares", *arguments, "--kubeconfig", str(kubeconfig)])
    assert result.exit_code == code, result.output
    return result.output


def test_a_table(kubeconfig: Path) -> None:
    lines = shares(kubeconfig).splitlines()
    assert lines[0].split() == ["NODE", "DEVICE", "SHARED", "BY", "HELD", "FREE", "LARGEST", "HOLDERS"]
    assert lines[1].endswith("ml/train (2 shares)")
    assert "none: draining" in lines[2]
    assert lines[3].split() == ["n1", "gpu-0", "exclusive", "whole", "-", "-", "ml/whole", "(whole)"]
    assert lines[5].startswith("n0: gpu-1: draining: ")
    assert "GPU-t4-0" in shares(kubeconfig, "-o", "wide")
    assert "n1" not in shares(kubeconfig, "--node", "n0")


def test_a_document_has_all_of_it(kubeconfig: Path) -> None:
    found = json.loads(shares(kubeconfig, "--output", "json"))
    assert found["driver"] == DRIVER
    first, second = found["nodes"]
    assert (first["name"], first["notes"], second["name"]) == ("n0", [], "n1")
    half, draining = first["devices"]
    (holder,) = half.pop("holders")
    assert half == {
        "device": "gpu-0",
        "devices": ["gpu-0"],
        "uuid": "GPU-t4-0",
        "gpuUUID": "GPU-t4-0",
        "product": "Tesla T4",
        "sharedBy": "TimeSlicing",
        "fence": "none: time slices divide time only",
        "sharingBackend": None,
        "sharingEnforcement": None,
        "capacity": {
            "memory": {"value": "15Gi", "held": "0", "free": "15Gi", "largest": "15Gi"},
            "shares": {"value": "4", "held": "2", "free": "2", "largest": "2"},
        },
        "blocked": None,
        "taints": [],
    }
    assert holder.pop("consumes") == {"memory": "0", "shares": "2"}
    assert [each["consumes"] for each in holder["shares"]] == [{"memory": "0", "shares": "1"}] * 2
    assert len({each["id"] for each in holder.pop("shares")}) == 2
    assert holder == {
        "claim": {"namespace": "ml", "name": "a"},
        "pods": [{"namespace": "ml", "name": "train", "phase": "Pending"}],
    }
    assert draining["blocked"] == {
        "why": "tainted",
        "detail": "gpu.nvidia.com/unavailable:NoSchedule",
        "claims": [],
    }
    assert [(each["key"], each["word"]) for each in draining["taints"]] == [("gpu.nvidia.com/unavailable", "draining")]
    (whole,) = second["devices"]
    assert (whole["sharedBy"], whole["blocked"]["why"]) == ("exclusive", "inUse")
    assert whole["holders"][0]["shares"] == [
        {"id": None, "device": "gpu-0", "consumes": {"shares": "1"}, "fence": None}
    ]


def test_nothing_shared_is_one_sentence(kubeconfig: Path) -> None:
    assert shares(kubeconfig, "--node", "n1").splitlines()[-1] == (
        "No device is offered in shares; the ConfigMap of NVIDIA's device plugin or spec.sharing.rules offers them, as "
        "docs/user/sharing.md says."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--node", "n9"], "gpu-dra shares: node n9 has no device of driver gpu.nvidia.com (these have some: n0, n1)"),
        (["--driver-name", "x"], "gpu-dra shares: no ResourceSlice is of driver x (there are slices of gpu.nvidia.com"),
        (["-o", "yaml"], "Invalid value for '--output'"),
        (["--node", "n9", "--watch"], "gpu-dra shares: node n9 has no device"),
    ],
)
def test_questions_without_an_answer(kubeconfig: Path, arguments: list[str], message: str) -> None:
    assert message in shares(kubeconfig, *arguments, code=2)


def test_a_cluster_that_cannot_be_asked(tmp_path: Path) -> None:
    result = runner.invoke(app, ["shares", "--kubeconfig", str(tmp_path / "nope")])
    assert result.exit_code == 2
    assert "gpu-dra shares: " in result.output


def test_only_what_is_seen_to_change_is_shown_again(api: EmbeddedApi) -> None:
    shown: list[tuple[NodeUse, ...]] = []
    watching = Watching(api, DRIVER, "n0")

    def look() -> None:
        with watching:
            follow(watching.looks(), nodes_of(read_cluster(api, DRIVER, "n0")), shown.append)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        create_claim(api, claim("other", "n1", "gpu-9"))  # on another node
        time.sleep(1.5)
        assert shown == []
        create_claim(api, share("b", "gpu-0", ONE), "second")
        wait_for(lambda: len(shown) > 0 and len(shown[-1][0].devices[0].holders) == 2)
        assert [pod.name for pod in shown[-1][0].devices[0].holders[1].pods] == ["second"]
        before = len(shown)
        api.delete(RESOURCE_CLAIMS, "a", "ml")
        wait_for(lambda: len(shown) > before)
        assert [str(holder.claim) for holder in shown[-1][0].devices[0].holders] == ["ml/b"]
    finally:
        watching.stop()
        thread.join(10)
    assert not thread.is_alive()


def test_what_cannot_be_said_while_watching_is_told_and_tried_again(
    api: EmbeddedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[tuple[NodeUse, ...]] = []
    watching = Watching(api, DRIVER, "n0")
    (published,) = (entry for entry in api.list(RESOURCE_SLICES).items if entry["spec"]["pool"]["name"] == "n0")
    first = nodes_of(read_cluster(api, DRIVER, "n0"))

    def look() -> None:
        with watching:
            follow(watching.looks(), first, shown.append)

    api.delete(RESOURCE_CLAIMS, "a", "ml")
    api.delete(RESOURCE_SLICES, published["metadata"]["name"])
    thread = threading.Thread(target=look)
    thread.start()
    try:
        told = ""
        deadline = time.monotonic() + 10
        while "node n0 has no device" not in told and time.monotonic() < deadline:
            time.sleep(0.05)
            told += capsys.readouterr().err
        assert "gpu-dra shares: node n0 has no device of driver gpu.nvidia.com (these have some: n1)" in told
        fresh = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "spec": published["spec"]}
        api.create(RESOURCE_SLICES, {**fresh, "metadata": {"name": published["metadata"]["name"]}})
        wait_for(lambda: len(shown) > 0)
    finally:
        watching.stop()
        thread.join(10)
    assert shown[-1][0].devices[0].holders == ()


@pytest.mark.process
@pytest.mark.parametrize("output", ["table", "json"])
def test_watch_prints_on_a_change_and_ends_with_ctrl_c(
    api: EmbeddedApi, kubeconfig: Path, tmp_path: Path, output: str
) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "dra_driver.cli.main", "shares", "-w", "-o", output]
    with log.open("w") as out:
        watch = subprocess.Popen(
            [*command, "--kubeconfig", str(kubeconfig)], stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    try:
        wait_for(lambda: "train" in log.read_text())
        create_claim(api, share("b", "gpu-0", ONE), "second")
        wait_for(lambda: "second" in log.read_text())
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 0, log.read_text()
    finally:
        watch.kill()
        watch.wait()
    if output == "json":
        documents = [json.loads(line) for line in log.read_text().splitlines()]
        held = [each["nodes"][0]["devices"][0]["capacity"]["shares"]["held"] for each in documents]
        assert (held[0], held[-1]) == ("2", "3")
    else:
        assert "Traceback" not in log.read_text()
        assert log.read_text().count("NODE  DEVICE") >= 2


def wait_for(condition: Callable[[], bool], timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)
