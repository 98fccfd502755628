"""The controller as a process: leadership, health, start and stop, dry run, command line."""

from __future__ import annotations

import io
import os
import signal
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import controller.main
from api.driver_config import DriverConfiguration, Identity
from controller.app import Controller, ControllerOptions, Election
from controller.dry_run import dry_run
from controller.inputs import in_use, trim_claim
from controller.main import main, make_options, run
from dra_driver.devices.policy import DevicePolicy
from dra_driver.hardware.model import Machine
from dra_driver.kube.interface import LEASES, RESOURCE_SLICES, KubeApi, Obj, Unavailable
from dra_driver.observability.loops import Loop
from dra_driver.simulation.store import EmbeddedApi
from tests.controller.world import DRIVER, World, big_machine

ELECTION = Election("default", "lock", "one", lease_seconds=8, renew_deadline=0.5, retry_period=0.05)


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Gated:
    """The embedded API; leases can be made to fail, and a hook runs after each slice that was created."""

    def __init__(self, api: EmbeddedApi) -> None:
        self._api = api
        self.leases_fail = False
        self.lists_fail = False
        self.after_create: Any = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._api, name)
        if name == "list" and self.lists_fail:
            return self._fail
        if name not in ("create", "update", "get"):
            return method

        def call(resource: Any, *arguments: Any, **options: Any) -> Any:
            if resource == LEASES and self.leases_fail:
                raise Unavailable("no leases today")
            answer = method(resource, *arguments, **options)
            if name == "create" and resource == RESOURCE_SLICES and self.after_create:
                self.after_create()
            return answer

        return call

    def _fail(self, *_arguments: Any, **_options: Any) -> Any:
        raise Unavailable("no lists today")


def test_loss_of_the_lease_in_the_middle_of_a_publication_ends_the_writing(world: World) -> None:
    """Three slices are to be created; after the first one the lease is lost."""
    gated = Gated(world.api)
    api: KubeApi = gated
    lost = threading.Event()
    world.add_node("n1", big_machine(150))
    candidate = Controller(api, ControllerOptions(DRIVER, election=ELECTION), on_lost=lost.set)

    def lose() -> None:
        gated.leases_fail = True
        assert lost.wait(5)

    gated.after_create = lose
    candidate.start()
    world.wait(lambda: world.slices("n1"))
    assert lost.wait(5)
    world.assert_quiet()
    assert len(world.slices("n1")) == 1
    assert not candidate.is_leading()
    candidate.stop()
    assert world.slice_writes() == {"create": 1}

    gated.leases_fail, gated.after_create = False, None
    second = replace(ELECTION, identity="two")
    world.api.delete(LEASES, "lock", "default")
    world.start_controller(api, election=second)
    world.published("n1", 150)


def test_standby_writes_nothing_and_takes_over_when_the_leader_stops(world: World, a100: Machine, t4: Machine) -> None:
    world.add_node("n1", a100)
    first = world.start_controller(election=ELECTION)
    world.published("n1", 8)
    second = world.start_controller(election=replace(ELECTION, identity="two"))
    assert second.inputs.wait_for_sync(5)
    assert first.is_leading()
    assert not second.is_leading()
    assert not second.may_write()
    writes = world.slice_writes()
    world.stop_controller(first)
    world.wait(second.is_leading)
    world.add_node("n2", t4)
    world.published("n2", 4)
    assert world.slice_writes() - writes == {"create": 1}
    assert second.metrics.registry.get_sample_value("gpu_dra_controller_leader") == 1


def test_health_endpoint_says_when_caches_are_filled(world: World, a100: Machine) -> None:
    gated = Gated(world.api)
    gated.lists_fail = True
    api: KubeApi = gated
    started = world.start_controller(api, http_endpoint="127.0.0.1:0", metrics_path="/m")
    status, text = get(started.http_port, "/readyz")
    assert status == 503
    assert "nodeinventories" in text
    assert get(started.http_port, "/healthz")[0] == 200
    gated.lists_fail = False
    world.wait(lambda: get(started.http_port, "/readyz")[0] == 200)
    world.add_node("n1", a100)
    world.published("n1", 8)
    text = get(started.http_port, "/m")[1]
    assert 'gpu_dra_controller_slice_writes_total{verb="create"} 1.0' in text
    assert 'gpu_dra_reflector_objects{resource="nodes"} 1.0' in text
    assert get(started.http_port, "/metrics")[0] == 404
    for loop in ("events", "reflector-nodes", "publisher-0"):
        assert f'gpu_dra_loop_errors_total{{loop="{loop}"}} 0.0' in text
        assert f'gpu_dra_loop_overdue_seconds{{loop="{loop}"}} 0.0' in text


def test_readiness_names_a_loop_that_stands_still(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    started = world.start_controller(http_endpoint="127.0.0.1:0")
    world.wait(lambda: get(started.http_port, "/readyz")[0] == 200)

    def still(loop: Loop) -> str | None:
        return f"{loop.name} stands still" if loop.name in ("events", "reflector-nodes", "publisher-3") else None

    monkeypatch.setattr(Loop, "standing_still", still)
    said = "loops: events stands still; reflector-nodes stands still; publisher-3 stands still\n"
    assert get(started.http_port, "/readyz") == (503, said)
    assert get(started.http_port, "/healthz")[0] == 200


def test_a_controller_whose_work_breaks_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_controller: Controller) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(Controller, "_queue_all", breaks)
    for election in (None, ELECTION):
        lost = threading.Event()
        candidate = Controller(world.api, ControllerOptions(DRIVER, election=election), on_lost=lost.set)
        candidate.start()
        assert lost.wait(5)
        candidate.stop()


def test_stop_before_anything_was_listed_is_prompt_and_leaves_no_thread(world: World) -> None:
    gated = Gated(world.api)
    gated.lists_fail = True
    before = set(threading.enumerate())
    api: KubeApi = gated
    started = world.start_controller(api, election=ELECTION)
    world.wait(started.is_leading)
    world.stop_controller(started)
    world.wait(lambda: set(threading.enumerate()) <= before, "threads to end", timeout=3)


# -- dry run ----------------------------------------------------------------------------------------------------------


def documents(text: str) -> list[Obj]:
    return [found for found in yaml.safe_load_all(text) if found]


def test_dry_run_prints_what_would_be_created_and_writes_nothing(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", a100)
    plugin.write_status({"features": {"x": True}})
    world.add_node("n2")
    before = world.api.writes()
    out = io.StringIO()
    assert dry_run(world.api, DRIVER, DevicePolicy(), out) == 0
    assert world.api.writes() == before
    text = out.getvalue()
    assert "# node n1: + 1  ~ 0  - 0 slices (created once the plugin proves that it is registered)" in text
    assert "# node n2: the inventory says nothing yet" in text
    [found] = documents(text)
    assert found["kind"] == "ResourceSlice"
    assert len(found["spec"]["devices"]) == 8


def test_dry_run_shows_updates_deletions_and_problems(world: World, a100: Machine) -> None:
    plugin = world.add_node("n1", big_machine(100))
    running = world.start_controller()
    world.published("n1", 100)
    world.allocate("n1", "gpu-99")
    world.stop_controller(running)
    plugin.report(big_machine(50))
    out = io.StringIO()
    assert dry_run(world.api, DRIVER, DevicePolicy(), out) == 0
    text = out.getvalue()
    assert "# node n1: + 0  ~ 1  - 1 slices\n" in text
    assert "#   AllocatedDeviceUnavailable: " in text
    [found] = documents(text)
    assert [device["name"] for device in found["spec"]["devices"]][-1] == "gpu-99"


def test_dry_run_on_a_published_and_an_empty_cluster(world: World, a100: Machine) -> None:
    out = io.StringIO()
    assert dry_run(world.api, DRIVER, DevicePolicy(), out) == 0
    assert "nothing to write" in out.getvalue()
    world.add_node("n1", a100)
    world.start_controller()
    world.published("n1", 8)
    out = io.StringIO()
    dry_run(world.api, DRIVER, DevicePolicy(), out)
    assert "# nothing to write: the pool is as desired at generation 1" in out.getvalue()


# -- command line -----------------------------------------------------------------------------------------------------


def test_run_ends_with_zero_on_sigterm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.setdefault)
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(run(world.api, ControllerOptions(DRIVER))))
    thread.start()
    world.wait(lambda: signal.SIGTERM in handlers)
    handlers[signal.SIGTERM](signal.SIGTERM, None)
    thread.join(10)
    assert results == [0]


def test_run_ends_with_one_when_the_lease_is_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    gated = Gated(world.api)
    api: KubeApi = gated
    results: list[int] = []
    options = ControllerOptions(DRIVER, election=ELECTION)
    thread = threading.Thread(target=lambda: results.append(run(api, options)))
    thread.start()
    world.wait(lambda: any(found["spec"]["holderIdentity"] == "one" for found in world.api.list(LEASES).items))
    gated.leases_fail = True
    thread.join(10)
    assert results == [1]


def test_run_ends_with_one_when_the_port_is_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    running = world.start_controller(http_endpoint="127.0.0.1:0")
    options = ControllerOptions(DRIVER, http_endpoint=f"127.0.0.1:{running.http_port}")
    assert run(world.api, options) == 1


@pytest.fixture
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("dra_driver.observability.logs.setup", lambda *_: None)


@pytest.mark.usefixtures("_clean_environment")
def test_wrong_flag_value_names_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--leader-elect-lease-duration", "soon"]) == 2
    assert "--leader-elect-lease-duration" in capsys.readouterr().err


@pytest.mark.usefixtures("_clean_environment")
def test_missing_kubeconfig_is_said(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    assert main(["--kubeconfig", str(tmp_path / "none")]) == 2
    assert str(tmp_path / "none") in caplog.text


@pytest.mark.usefixtures("_clean_environment")
def test_dry_run_flag_prints_to_standard_output(
    world: World, a100: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.add_node("n1", a100)
    monkeypatch.setattr(controller.main, "connect", lambda *_arguments, **_options: world.api)
    assert main(["--dry-run"]) == 0
    assert "kind: ResourceSlice" in capsys.readouterr().out


def test_options_come_from_the_configuration() -> None:
    config = DriverConfiguration.model_validate(
        {
            "spec": {
                "driverName": "gpu.example.com",
                "controller": {"wipe": {"settle": "250ms"}},
                "observability": {"httpEndpoint": ":8080"},
                "policy": {"additionalAttributes": True},
            }
        }
    )
    options = make_options(config, Identity(node_name="", namespace="ns", pod_name="pod", pod_uid=""))
    assert options.driver == "gpu.example.com"
    assert options.policy.additional_attributes
    assert options.timings.settle == 0.25
    assert options.http_endpoint == ":8080"
    assert options.election is not None
    assert options.election.namespace == "ns"
    assert options.election.identity.startswith("pod_")
    off = DriverConfiguration.model_validate({"spec": {"controller": {"leaderElection": {"enabled": False}}}})
    identity = Identity(node_name="", namespace="ns", pod_name="", pod_uid="")
    assert make_options(off, identity).election is None
    assert make_options(off, identity).identity == os.uname().nodename


def test_claims_are_cut_down_to_what_they_hold() -> None:
    results = [
        {"driver": DRIVER, "pool": "n1", "device": "gpu-0", "request": "a"},
        {"driver": DRIVER, "pool": "n2", "device": "gpu-1", "request": "b"},
        {"driver": DRIVER, "pool": "n1", "device": "gpu-2", "request": "c", "adminAccess": True},
        {"driver": "other", "pool": "n1", "device": "gpu-3", "request": "d"},
    ]
    claim = {
        "metadata": {"name": "c", "namespace": "ns", "uid": "u", "resourceVersion": "3", "managedFields": []},
        "spec": {},
        "status": {"allocation": {"devices": {"results": results}}},
    }
    trimmed = trim_claim(claim, DRIVER)
    assert trimmed["metadata"] == {"name": "c", "namespace": "ns", "uid": "u", "resourceVersion": "3"}
    assert in_use([trimmed], "n1") == {"gpu-0"}
    assert in_use([trim_claim({"metadata": {"name": "c"}}, DRIVER)], "n1") == frozenset()
