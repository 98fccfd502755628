"""The local cluster's pure parts: settings, what components are told, processes by pid and start time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.clusters import programs
from e2e.clusters.interface import ClusterError
from e2e.clusters.local import certificates, cgroups
from e2e.clusters.local.components import Components
from e2e.clusters.local.init import Supervisor, answer, serve_one
from e2e.clusters.local.settings import ClusterSettings
from e2e.clusters.processes import Process


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterSettings:
    monkeypatch.setenv("GPU_DRA_CACHE", str(tmp_path))
    return ClusterSettings("c", "1.34", nodes=2, machine="t4", without=("DRAConsumableCapacity",))


def components(settings: ClusterSettings) -> Components:
    names = (
        "etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy containerd "
        "containerd-shim-runc-v2 bridge"
    )
    return Components(settings, {name: Path("/programs", name) for name in names.split()})


def test_settings_survive_a_file(settings: ClusterSettings) -> None:
    assert ClusterSettings.load("c") is None
    settings.save()
    assert ClusterSettings.load("c") == settings


def test_every_node_has_its_own_addresses(settings: ClusterSettings) -> None:
    assert [(node.name, node.address, node.pod_range) for node in settings.node_settings] == [
        ("node-0", "10.250.0.10", "10.244.0.0/24"),
        ("node-1", "10.250.0.11", "10.244.1.0/24"),
    ]
    assert settings.machines == ("control", "node-0", "node-1")


def test_an_old_minor_gets_its_gates_on_every_component_that_knows_them(settings: ClusterSettings) -> None:
    made = components(settings)
    node = settings.node_settings[0]
    for command in (made.apiserver(), made.controller_manager(), made.scheduler(), made.kubelet(node)):
        (gates,) = [flag for flag in command if flag.startswith("--feature-gates=")]
        assert "DRAPartitionableDevices=true" in gates
        assert "ResourceHealthStatus=true" in gates
        assert "DRAConsumableCapacity=false" in gates, "asked to be without it"
        assert "DRAConsumableCapacity=true" not in gates
    newest = components(ClusterSettings("c", programs.NEWEST_KUBERNETES))
    assert not [flag for flag in newest.apiserver() if flag.startswith("--feature-gates")]


def test_every_component_file_is_in_its_nodes_folder(settings: ClusterSettings) -> None:
    components(settings).write_files()
    for node in settings.node_settings:
        folder = settings.machine_folder(node.name)
        kubelet = json.loads((folder / "kubelet.json").read_text())
        assert kubelet["protectKernelDefaults"] is True  # checks the machine's sysctls, never sets them
        assert ("failCgroupV1" in kubelet) is not cgroups.is_version_2()
        network = json.loads((folder / "cni/10-bridge.conflist").read_text())
        assert network["plugins"][0]["ipam"]["ranges"] == [[{"subnet": node.pod_range}]]
        assert f'conf_dir = "{folder}/cni"' in (folder / "containerd.toml").read_text()
        proxy = json.loads((folder / "kube-proxy.json").read_text())
        assert proxy["conntrack"]["maxPerCore"] == 0  # the limit is the machine's


def test_accounts_have_the_groups_that_authorization_looks_at(settings: ClusterSettings) -> None:
    found = certificates.accounts(settings)
    assert found["admin"].groups == ("system:masters",)
    assert found["kubelet-node-1"] == certificates.Account("system:node:node-1", ("system:nodes",))


def test_the_servers_certificate_names_every_way_to_it(settings: ClusterSettings) -> None:
    certificates.make(settings)
    text = subprocess.run(
        ["openssl", "x509", "-in", settings.pki / "server.crt", "-noout", "-text"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in ("DNS:kubernetes.default.svc", "IP Address:10.96.0.1", "IP Address:10.250.0.1", "IP Address:127.0.0.1"):
        assert name in text
    certificates.write_outside_kubeconfig(settings, 4321)
    assert "https://127.0.0.1:4321" in settings.kubeconfig.read_text()
    assert settings.kubeconfig.stat().st_mode & 0o077 == 0


def test_a_pid_that_was_given_to_another_process_is_not_ours(tmp_path: Path) -> None:
    mine = Process.of(os.getpid())
    assert mine is not None
    assert mine.alive
    assert not Process(mine.pid, mine.started - 1).alive
    mine.write(tmp_path / "pid")
    assert Process.read(tmp_path / "pid") == mine
    assert Process.read(tmp_path / "absent") is None


def test_a_process_is_ended_and_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        known = Process.of(child.pid)
        assert known is not None
        assert known.stop()
        assert Process.of(child.pid) is None  # a zombie counts as gone
        assert child.wait(5) == -signal.SIGTERM


def test_init_runs_components_and_says_what_is_wrong(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    sleep = {"do": "start", "name": "a", "command": ["/bin/sleep", "60"]}
    pid = answer(supervisor, sleep)["pid"]
    assert answer(supervisor, {"do": "status"}) == {"running": {"a": pid}}
    assert "runs already" in answer(supervisor, sleep)["error"]
    assert "No such file" in answer(supervisor, {"do": "start", "name": "b", "command": ["/nowhere"]})["error"]
    assert answer(supervisor, {"do": "stop", "name": "a", "timeout": 5.0}) == {"gently": True}
    assert answer(supervisor, {"do": "status"}) == {"running": {}}
    assert answer(supervisor, {"do": "dance"}) == {"error": "unknown request 'dance'"}


def test_a_component_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    supervisor.start("stubborn", ["/bin/sh", "-c", script], {})
    while "ready" not in (tmp_path / "stubborn.log").read_text():
        pass
    assert supervisor.stop("stubborn", signal.SIGTERM, timeout=0.3) is False
    assert supervisor.running == {}


def test_unknown_versions_of_kubernetes_are_refused_with_those_there_are() -> None:
    with pytest.raises(ClusterError, match=r"1\.30 is not built here; there are 1\.34, 1\.37"):
        programs.kubernetes("1.30")
    assert programs.kubernetes("1.37.2").resolved_version == "1.37.2"
    with pytest.raises(ClusterError, match=r"of Kubernetes 1\.37 there is 1\.37\.2 here, not 1\.37\.9"):
        programs.kubernetes("1.37.9")


@pytest.mark.parametrize("minor", programs.kubernetes_minors())
def test_every_module_of_a_kubernetes_has_one_staging_version(minor: str) -> None:
    text = (programs.kubernetes(minor).path / "go.mod").read_text()
    version = programs.kubernetes(minor).resolved_version
    replaced = [line.split() for line in text.splitlines() if "=>" in line]
    assert len(replaced) > 25
    assert {words[3] for words in replaced} == {f"v0.{version.partition('.')[2]}"}


def test_a_changed_pin_is_built_again(settings: ClusterSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    module = programs.PAUSE
    assert programs.find(module) is None
    module.target.mkdir(parents=True)
    (module.target / ".stamp").write_text("of something else")
    assert programs.find(module) is None
    (module.target / ".stamp").write_text(programs._stamp(module))
    assert programs.find(module) == module.target


@pytest.mark.process
@pytest.mark.skipif(shutil.which("go") is None, reason="no Go on the PATH")
def test_modules_that_cannot_be_fetched_are_told_from_a_build_that_fails(
    settings: ClusterSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOPROXY", "off")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    with pytest.raises(
        programs.ModulesOutOfReach, match=r"of crictl-\S+ cannot be fetched:\n.*disabled by GOPROXY=off"
    ):
        programs.ensure([programs.CRICTL])
    assert programs.find(programs.CRICTL) is None


@pytest.mark.parametrize("sent", [b"", b'{"do"', b"no JSON\n", b"[]\n"])
def test_a_machine_outlives_whoever_talks_nonsense_to_it(
    tmp_path: Path, sent: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = Supervisor(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        caller.settimeout(10)
        caller.connect(str(tmp_path / "s"))
        caller.sendall(sent)
        serve_one(listener, supervisor, 0.1)
        assert caller.recv(1000) == b""
        assert "init: a request was not answered: " in capsys.readouterr().err
        with socket.socket(socket.AF_UNIX) as other:
            other.settimeout(10)
            other.connect(str(tmp_path / "s"))
            other.sendall(b'{"do": "status"}\n')
            serve_one(listener, supervisor)
            assert json.loads(other.recv(1000)) == {"running": {}}
