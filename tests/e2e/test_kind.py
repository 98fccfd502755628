"""The parts of the kind cluster that need no cluster: documents, the OCI runtime, the image's key, state on disk."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.clusters import packages
from e2e.clusters.interface import Ability, Cluster, ClusterError
from e2e.clusters.kind import __main__ as command_line
from e2e.clusters.kind import daemon, node_root, oci_runtime
from e2e.clusters.kind.archive import image_references
from e2e.clusters.kind.cluster import KindCluster
from e2e.clusters.kind.configuration import api_server, with_server, with_workers
from e2e.clusters.kind.engine import daemon_engine
from e2e.clusters.kind.lifecycle import CONFIGURATION, down
from e2e.clusters.kind.node_image import image_key
from e2e.clusters.kind.state import State, StateFolder
from e2e.clusters.processes import Process, start_detached
from e2e.clusters.runner import Runner
from e2e.images.oci import ImageConfig, make_layer, write_archive

_ALL = (1 << 41) - 1
_WITHOUT_SYS_RESOURCE = _ALL & ~(1 << 24)

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters:
- name: kind-gpu-dra
  cluster: {certificate-authority-data: QQ==, server: "https://127.0.0.1:40123"}
"""


def test_the_shipped_configuration_is_one_node_that_runs_pods() -> None:
    document = yaml.safe_load(CONFIGURATION.read_text())
    assert (document["kind"], document["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")
    assert document["name"] == "gpu-dra"
    assert document["nodes"] == [{"role": "control-plane"}]
    # What it says in comments is valid YAML too, one "# " away.
    commented = [line for line in CONFIGURATION.read_text().splitlines() if line.startswith(("# feature", "# runtime"))]
    assert commented == ["# featureGates:", "# runtimeConfig:"]


def test_workers_replace_the_workers_of_a_configuration() -> None:
    two = yaml.safe_load(with_workers(CONFIGURATION.read_text(), 2))
    assert [node["role"] for node in two["nodes"]] == ["control-plane", "worker", "worker"]
    mounts = {"role": "worker", "extraMounts": [{"hostPath": "/a", "containerPath": "/b"}]}
    one = yaml.safe_dump({**two, "nodes": [{"role": "control-plane"}, mounts, {"role": "worker"}]})
    assert yaml.safe_load(with_workers(one, 3))["nodes"][1:] == [mounts] * 3
    assert two["name"] == "gpu-dra"


def test_a_forwarded_kubeconfig_still_verifies_the_certificate() -> None:
    assert api_server(KUBECONFIG) == ("127.0.0.1", 40123)
    cluster = yaml.safe_load(with_server(KUBECONFIG, 5001))["clusters"][0]["cluster"]
    assert cluster == {
        "certificate-authority-data": "QQ==",
        "server": "https://127.0.0.1:5001",
        "tls-server-name": "127.0.0.1",
    }


@pytest.mark.parametrize("text", ["clusters: []", "- a", KUBECONFIG.replace(":40123", "")])
def test_a_kubeconfig_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ClusterError, match="kubeconfig"):
        api_server(text)


def _process(**more: Any) -> dict[str, Any]:
    held = ["CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_NET_ADMIN"]
    return {"args": ["/sbin/init"], "capabilities": {"bounding": held, "effective": held}, **more}


def test_the_runtime_changes_nothing_where_nothing_is_missing() -> None:
    process = _process(oomScoreAdj=-500, rlimits=[{"type": "RLIMIT_NOFILE", "hard": 1 << 20, "soft": 1 << 20}])
    assert oci_runtime.fitted(process, _ALL, 0, lambda _: 1024) == process


def test_the_runtime_takes_what_cannot_be_given() -> None:
    process = _process(oomScoreAdj=-500, rlimits=[{"type": "RLIMIT_NOFILE", "hard": 1 << 20, "soft": 4096}])
    fitted = oci_runtime.fitted(process, _WITHOUT_SYS_RESOURCE, 7, lambda _: 20000)
    assert fitted["capabilities"] == {key: ["CAP_CHOWN", "CAP_NET_ADMIN"] for key in ("bounding", "effective")}
    assert fitted["oomScoreAdj"] == 7
    assert fitted["rlimits"] == [{"type": "RLIMIT_NOFILE", "hard": 20000, "soft": 4096}]
    assert fitted["args"] == ["/sbin/init"]
    unlimited = oci_runtime.fitted(process, _WITHOUT_SYS_RESOURCE, -900, lambda _: resource.RLIM_INFINITY)
    assert unlimited["rlimits"] == process["rlimits"]
    assert unlimited["oomScoreAdj"] == -500


@pytest.mark.parametrize(
    ("arguments", "document"),
    [
        (["--root", "/run/x", "--log", "create", "create", "--bundle", "/b", "id"], ("/b/config.json", "process")),
        (["--log-format=json", "run", "-b=/b", "id"], ("/b/config.json", "process")),
        (["create", "id"], ("./config.json", "process")),
        (["--root", "exec", "exec", "--process", "/p.json", "id"], ("/p.json", None)),
        (["exec", "id", "ls"], None),
        (["--root", "run", "delete", "--force", "create"], None),
        (["--version"], None),
    ],
)
def test_the_runtime_finds_the_document(arguments: list[str], document: tuple[str, str | None] | None) -> None:
    assert oci_runtime.document_of(arguments) == document


@pytest.mark.process
def test_the_runtime_runs_with_any_python_and_becomes_runc(tmp_path: Path) -> None:
    bundle = tmp_path / "config.json"
    bundle.write_text(json.dumps({"process": _process()}))
    code = Path(oci_runtime.__file__).read_text()
    runc = tmp_path / "runc"
    runc.write_text('#!/bin/sh\necho "$0 $*"\n')
    runc.chmod(0o755)
    script = tmp_path / "runtime.py"
    script.write_text(code.replace('RUNC = ("/usr/sbin/runc"', f'RUNC = ("{runc}"'))
    command = [sys.executable, "-ISs", str(script), "create", "--bundle", str(tmp_path), "id"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{runc} create --bundle {tmp_path} id\n"
    status = Path("/proc/self/status").read_text()
    bounding = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd:"))
    left = json.loads(bundle.read_text())["process"]["capabilities"]["bounding"]
    assert ("CAP_SYS_RESOURCE" in left) == bool(bounding >> 24 & 1)


def test_the_images_key_follows_everything_that_goes_in(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    key = image_key("programs", [one, two])
    assert key == image_key("programs", [two, one])
    assert len(key) == 16
    others = {image_key("other", [one, two]), image_key("programs", [one])}
    two.write_text("3")
    others.add(image_key("programs", [one, two]))
    assert len(others | {key}) == 4


def test_our_files_of_the_node_are_all_used() -> None:
    source = Path(node_root.__file__).read_text()
    assert [path.name for path in node_root.OURS.iterdir() if f'("{path.name}", ' not in source] == []


def test_the_name_of_an_image_is_read_from_its_archive(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    layer = make_layer(tmp_path / "root", tmp_path / "layer")
    archive = tmp_path / "image.tar"
    write_archive(archive, "docker.io/library/gpu-dra:1", [layer], ImageConfig())
    assert image_references(archive) == ("docker.io/library/gpu-dra:1",)
    with pytest.raises(ClusterError, match="is no image archive"):
        image_references(layer.path.with_name("nothing.tar"))


def test_commands_beside_our_daemon_see_none_of_the_users_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "DOCKER_CONTEXT", "KIND_EXPERIMENTAL_PROVIDER"):
        monkeypatch.setenv(name, "the user's")
    engine = daemon_engine(4711, Path("/x/docker.sock"), Path("/x/client"))
    assert engine.prefix == ("nsenter", "--net=/proc/4711/ns/net", "--")
    environment = engine.full_environment()
    assert "the user's" not in environment.values()
    assert environment["DOCKER_HOST"] == "unix:///x/docker.sock"
    assert environment["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("arguments", "ours"),
    [
        (["kubectl", "-n", "kube-system", "get", "pods"], 1),
        (["kubectl", "--name", "a", "exec", "p", "--", "ls", "--name"], 3),
        (["kubectl", "--name=a", "get", "pods"], 2),
        (["exec", "--name", "a", "node", "ls", "-l"], 6),
        ([], 0),
    ],
)
def test_kubectls_flags_are_not_ours(arguments: list[str], ours: int) -> None:
    assert command_line._split(arguments) == (arguments[:ours], arguments[ours:])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFolder:
    monkeypatch.setenv("GPU_DRA_CACHE", str(tmp_path / "cache"))
    folder = StateFolder.of("trial")
    folder.path.mkdir(parents=True)
    return folder


def test_state_survives_a_restart_and_names_processes_by_start_time(folder: StateFolder) -> None:
    assert folder.read() is None
    folder.write(State(own_daemon=True, nodes=("a", "b"), machine="h100"))
    me = Process.of(os.getpid())
    assert me is not None
    folder.record("daemon", me)
    state = folder.read()
    assert state == State(own_daemon=True, nodes=("a", "b"), machine="h100", processes={"daemon": me})
    assert me.alive
    assert not Process(me.pid, me.started - 1).alive


def test_pods_run_on_workers_where_there_are_any(folder: StateFolder) -> None:
    plane, workers = "trial-control-plane", ("trial-worker", "trial-worker2")
    alone: Cluster = KindCluster(folder, State(own_daemon=True, nodes=(plane,), image="gpu-dra:1"), Runner())
    assert (alone.name, alone.nodes, alone.image, alone.simulated_machine) == ("trial", (plane,), "gpu-dra:1", None)
    assert alone.abilities == frozenset(Ability)
    three: Cluster = KindCluster(folder, State(own_daemon=True, nodes=(plane, *workers)), Runner())
    assert three.nodes == workers
    with pytest.raises(ClusterError, match="trial has no node 'other', but trial-control-plane"):
        alone.run_on_node("other", ["true"])


def test_there_is_nothing_to_attach_to_before_up_has_ended(folder: StateFolder) -> None:
    for state in (None, State(own_daemon=True)):
        if state is not None:
            folder.write(state)
        with pytest.raises(ClusterError, match="kind up --name trial"):
            KindCluster.attach("trial")
    folder.write(State(own_daemon=True, ready=True, processes={"daemon": Process(1, 0)}))
    with pytest.raises(ClusterError, match="daemon of trial is gone"):
        KindCluster.attach("trial")


def test_two_commands_do_not_change_one_cluster(folder: StateFolder) -> None:
    with folder.locked(), pytest.raises(ClusterError, match="another command is changing the cluster trial"):  # noqa: SIM117
        with folder.locked():
            pytest.fail("both have the lock")


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "-a", "x" * 41])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="is no name for a cluster"):
        StateFolder.of(name)


@pytest.mark.process
def test_a_process_that_only_has_the_recorded_pid_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        process = Process.of(other.pid)
        assert process is not None
        assert Process(process.pid, process.started + 1).end(signal.SIGKILL, timeout=1)
        assert other.poll() is None
        assert process.end(signal.SIGKILL, timeout=10)
        assert other.wait(10) == -signal.SIGKILL


@pytest.mark.process
def test_a_child_does_nothing_before_it_is_recorded(tmp_path: Path) -> None:
    mark, log = tmp_path / "mark", tmp_path / "log"
    code = "import os, sys, pathlib\nif os.read(0, 16) == b'go\\n': pathlib.Path(sys.argv[1]).touch()"

    def refuse(_: Process) -> None:
        raise ClusterError("no space left")

    with pytest.raises(ClusterError, match="no space left"):
        start_detached([sys.executable, "-c", code, str(mark)], log=log, record=refuse)
    seen: list[Process] = []
    process = start_detached([sys.executable, "-c", code, str(mark)], log=log, record=seen.append)
    assert seen == [process]
    os.waitpid(process.pid, 0)
    assert mark.exists()
    assert not process.alive


@pytest.mark.process
def test_down_clears_up_after_a_creation_that_was_killed(
    folder: StateFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroups = tmp_path / "cgroups"
    (cgroups / "memory" / "gpu-dra-kind-trial" / "docker").mkdir(parents=True)
    (cgroups / "memory" / "gpu-dra-kind-other").mkdir(parents=True)
    monkeypatch.setattr(daemon, "_CGROUPS", cgroups)
    (folder.path / "docker/containers/0a1b").mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as left:
        process = Process.of(left.pid)
        assert process is not None
        folder.write(State(own_daemon=True, processes={"daemon": process}))
        down("trial")
        assert left.wait(10) == -signal.SIGKILL
    assert folder.read() is None
    assert not (folder.path / "docker").exists()
    assert [path.name for path in (cgroups / "memory").iterdir()] == ["gpu-dra-kind-other"]
    down("trial")  # of nothing is nothing


@pytest.mark.process
@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_a_daemons_data_is_packed_once_and_unpacked_for_others(tmp_path: Path) -> None:
    first, second = (daemon.Daemon(tmp_path / name, name) for name in ("first", "second"))
    (first.data / "image").mkdir(parents=True)
    (first.data / "image/layer").write_text("content")
    archive = tmp_path / "data.tar.zst"
    first.pack(archive, "node:1")
    (second.data / "containers/0a1b").mkdir(parents=True)
    second.fill(archive, "node:1")
    assert (first.holds, second.holds) == ("node:1", "node:1")
    assert (second.data / "image/layer").read_text() == "content"
    assert not second.has_containers
    second.forget_containers()
    assert second.holds is None
    archive.write_text("no archive")
    with pytest.raises(ClusterError, match="is damaged"):
        second.fill(archive, "node:1")
    assert second.holds is None


def test_missing_packages_are_named_in_one_line_where_they_cannot_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match=r"apt-get install --yes --no-install-recommends nothing-such zzz$"):
        packages.ensure_packages({"no-such-program": "nothing-such", "/no/such/file": "zzz", "sh": "dash"})


def test_where_nothing_is_missing_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    packages.ensure_packages({"sh": "dash", "/bin/sh": "dash"})
