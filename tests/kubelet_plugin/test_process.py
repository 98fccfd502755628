"""The plugin as a real process on simulated GPUs, with an API server over HTTP and the fake kubelet."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dra_driver.kube.interface import NODE_INVENTORIES, PODS, RESOURCE_CLAIMS, Obj, Resource
from dra_driver.simulation.hardware import create_state, faults
from dra_driver.simulation.hardware.driver import replace_driver
from dra_driver.simulation.hardware.host_root import LIBRARY_FOLDER, build
from dra_driver.simulation.hardware.toolkit import Toolkit
from dra_driver.simulation.kubelet import KubeletOptions
from dra_driver.simulation.runtime.runtime import ContainerView
from tests.kubelet_plugin.fakes import DRIVER, FAST, NODE, eventually
from tests.kubelet_plugin.node_lab import NodeLab, PluginProcess
from tests.programs import execute

pytestmark = pytest.mark.process


@pytest.fixture
def lab(root: Path) -> Iterator[NodeLab]:
    lab = NodeLab(root)
    yield lab
    lab.close()


def run_pod(lab: NodeLab, name: str) -> ContainerView:
    """A pod with a claim on gpu-0, until it runs; what its container sees."""
    lab.cluster.claim(name)
    pod = lab.cluster.pod(name, name)
    eventually(lambda: lab.cluster.phase(name) == "Running", timeout=20)
    view = lab.kubelet.container_view(pod["metadata"]["uid"], "main")
    assert view is not None
    return view


def delete_pod(lab: NodeLab, name: str) -> None:
    lab.api.delete(PODS, name, "default")
    eventually(lambda: lab.cluster.gone(name), timeout=20)
    lab.api.delete(RESOURCE_CLAIMS, name, "default")


def cdi_files(lab: NodeLab) -> list[str]:
    return sorted(path.name for path in lab.cluster.cdi_dir.iterdir()) if lab.cluster.cdi_dir.exists() else []


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_from_registration_to_a_container_and_back(lab: NodeLab) -> None:
    address = free_address()
    plugin = lab.plugin(f"--http-endpoint={address}")
    lab.wait_ready()
    machine = lab.status()["machine"]
    assert len(machine["gpus"]) == 8
    assert len(json.dumps(lab.inventory())) < 10_000
    assert lab.condition("HardwareReady")["status"] == "True"

    view = run_pod(lab, "p")
    assert {"/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm"} <= {node.path for node in view.device_nodes}
    assert "/dev/nvidia1" not in {node.path for node in view.device_nodes}
    assert view.env["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert any(mount.container_path.endswith("/libcuda.so.1") for mount in view.mounts)
    assert len(cdi_files(lab)) == 1

    assert get(address, "/healthz") == (200, "ok\n")
    assert get(address, "/readyz") == (200, "ok\n")
    metrics = get(address, "/metrics")[1]
    assert f'nvidia_dra_requests_total{{driver="{DRIVER}",operation="prepare"}} 1.0' in metrics
    assert f'nvidia_dra_prepared_devices{{device_type="gpu",driver="{DRIVER}",node="{NODE}"}} 1.0' in metrics
    loops = ("events", "failure-events", "hardware-watch", "hardware-events", "inventory", "reflector-nodeinventories")
    for loop in loops:
        assert f'gpu_dra_loop_errors_total{{loop="{loop}"}} 0.0' in metrics
        assert f'gpu_dra_loop_overdue_seconds{{loop="{loop}"}} 0.0' in metrics

    delete_pod(lab, "p")
    assert cdi_files(lab) == []
    assert plugin.terminate() == 0
    assert not list(lab.kubelet.registry_dir.iterdir())
    assert "Traceback" not in plugin.output()


def test_a_driver_in_the_folder_that_nvml_is_loaded_from_is_prepared(lab: NodeLab) -> None:
    """``<root>/lib``: NVML was loaded from there, and every prepare failed."""
    (lab.host / LIBRARY_FOLDER).rename(lab.host / "lib")
    lab.plugin()
    lab.wait_ready()
    assert lab.condition("HardwareReady")["status"] == "True"
    assert any(mount.host_path.startswith(f"{lab.host}/lib/libcuda.so") for mount in run_pod(lab, "p").mounts)


def test_a_node_that_cannot_prepare_offers_nothing_until_it_can(lab: NodeLab) -> None:
    address = free_address()
    libraries = lab.host / LIBRARY_FOLDER
    libraries.rename(lab.host / "away")
    lab.plugin(f"--http-endpoint={address}")
    lab.wait_ready()
    condition = lab.condition("HardwareReady")
    assert (condition["status"], condition["reason"]) == ("False", "NotPreparable")
    assert f"no NVIDIA driver libraries in driver root {lab.host}" in condition["message"]
    assert "machine" not in lab.status()
    eventually(lambda: "hardware: no GPU is offered" in get(address, "/readyz")[1])
    (lab.host / "away").rename(libraries)
    eventually(lambda: len(lab.status().get("machine", {}).get("gpus", ())) == 8, timeout=20)
    assert lab.condition("HardwareReady")["status"] == "True"
    eventually(lambda: get(address, "/readyz") == (200, "ok\n"))
    run_pod(lab, "p")


def test_the_hooks_of_either_toolkit_reach_the_container(lab: NodeLab) -> None:
    lab.plugin()
    lab.wait_ready()
    assert run_pod(lab, "hook-free").hooks == ()
    delete_pod(lab, "hook-free")
    four = ["create-symlinks", "create-symlinks", "enable-cuda-compat", "update-ldcache"]
    four.append("disable-device-node-modification")
    for toolkit, names in ((Toolkit.V1_19, four), (Toolkit.V1_20, [*four, "update-application-profile"])):
        build(lab.host, lab.state, toolkit)
        pod = toolkit.name.lower().replace("_", "-")
        assert [hook.args[1] for hook in run_pod(lab, pod).hooks] == names
        delete_pod(lab, pod)


def test_a_plugin_without_its_socket_is_neither_ready_nor_alive(lab: NodeLab) -> None:
    address = free_address()
    lab.plugin(f"--http-endpoint={address}")
    lab.wait_ready()
    dra_socket = next(path for path in (lab.kubelet.plugins_dir / DRIVER).iterdir() if path.name.endswith(".sock"))
    eventually(lambda: get(address, "/readyz")[0] == 200)
    dra_socket.unlink()
    eventually(lambda: get(address, "/healthz")[0] == 503)
    status, text = get(address, "/readyz")
    assert status == 503
    assert f"sockets: an empty NodePrepareResources on {dra_socket} failed: UNAVAILABLE" in text


def test_a_killed_plugin_comes_back_with_its_claims_and_without_a_needless_write(lab: NodeLab) -> None:
    plugin = lab.plugin()
    lab.wait_ready()
    run_pod(lab, "p")
    version = lab.inventory()["metadata"]["resourceVersion"]
    plugin.kill()
    again = lab.plugin()
    eventually(lambda: len(lab.kubelet.plugins.registrations) == 2, timeout=20)
    assert lab.kubelet.wait_for_plugin(DRIVER)
    assert len(cdi_files(lab)) == 1
    delete_pod(lab, "p")
    assert cdi_files(lab) == []
    assert lab.inventory()["metadata"]["resourceVersion"] == version
    assert again.running


def test_a_pod_deleted_while_the_plugin_is_dead_goes_when_it_is_back(lab: NodeLab) -> None:
    plugin = lab.plugin()
    lab.wait_ready()
    run_pod(lab, "p")
    plugin.kill()
    lab.api.delete(PODS, "p", "default")
    eventually(lambda: any(call.error for call in lab.kubelet.calls if call.operation == "unprepare"))
    assert not lab.cluster.gone("p")
    lab.plugin()
    eventually(lambda: lab.cluster.gone("p"), timeout=20)
    assert cdi_files(lab) == []


def test_old_and_new_plugin_overlap_and_share_their_state(lab: NodeLab) -> None:
    old = lab.plugin(pod_uid="old")
    lab.wait_ready()
    run_pod(lab, "before")
    lab.plugin(pod_uid="new")
    assert lab.kubelet.wait_for_plugin(DRIVER, count=2, timeout=20)
    assert old.terminate() == 0
    delete_pod(lab, "before")
    run_pod(lab, "after")
    eventually(lambda: lab.status()["registration"]["pluginInstance"] == "new")
    assert lab.kubelet.wiper.wipes == [""]
    assert [path.name for path in lab.kubelet.registry_dir.iterdir()] == [f"{DRIVER}-new-reg.sock"]


def test_a_challenge_is_answered_while_the_kubelet_is_there(lab: NodeLab) -> None:
    lab.plugin()
    lab.wait_ready()
    lab.api.patch(NODE_INVENTORIES, NODE, {"spec": {"challenge": "first"}})
    eventually(lambda: lab.status().get("answer") == "first")
    lab.kubelet.stop()
    lab.api.patch(NODE_INVENTORIES, NODE, {"spec": {"challenge": "second"}})
    assert lab.status()["answer"] == "first"
    lab.kubelet.start()
    eventually(lambda: lab.status()["answer"] == "second")


def test_a_failed_claim_is_told_to_its_pod(lab: NodeLab) -> None:
    lab.plugin()
    lab.wait_ready()
    run_pod(lab, "first")
    lab.cluster.claim("second")  # on gpu-0 too, as after a forced deletion
    lab.cluster.pod("second", "second")
    event = eventually(lambda: lab.events("DeviceInUse"), timeout=20)[0]
    assert event["involvedObject"] | {"kind": "Pod", "name": "second"} == event["involvedObject"]
    assert "default/first" in event["message"]
    assert event["source"]["component"] == "gpu-dra-kubelet-plugin"
    delete_pod(lab, "first")
    eventually(lambda: lab.cluster.phase("second") == "Running", timeout=20)


@pytest.mark.parametrize("trouble", ["no library", "no state file", "broken state file"])
def test_without_usable_hardware_it_serves_says_why_and_recovers(lab: NodeLab, trouble: str) -> None:
    extra: list[str] = []
    if trouble == "no library":
        empty = lab.root / "empty"
        empty.mkdir()
        extra = ["--simulated-state=", f"--container-driver-root={empty}"]
        wanted = f"no libnvidia-ml.so.1 under driver root {empty}; looked for {empty}/usr/lib64/libnvidia-ml.so.1"
    else:
        lab.state.unlink()
        if trouble == "broken state file":
            lab.state.write_text("{not a machine")
        wanted = str(lab.state)
    plugin = lab.plugin(*extra)
    lab.wait_ready()  # registered all the same: claims of this node must be unprepared
    condition = lab.condition("HardwareReady")
    assert condition["status"] == "False"
    assert wanted in condition["message"]
    assert "machine" not in lab.status()
    lab.cluster.claim("p")
    lab.cluster.pod("p", "p")
    eventually(lambda: lab.events("HardwareUnavailable"), timeout=20)
    if trouble != "no library":
        create_state("a100-sxm4-40gb", lab.state, seed=NODE)
        eventually(lambda: lab.condition("HardwareReady")["status"] == "True", timeout=20)
        eventually(lambda: lab.cluster.phase("p") == "Running", timeout=20)
    assert plugin.running
    assert "Traceback" not in plugin.output()


def device_health(lab: NodeLab, pod: str) -> list[dict[str, Any]]:
    """What the pod's status says of the devices of its first container."""
    statuses = lab.api.get(PODS, pod, "default")["status"].get("containerStatuses") or [{}]
    return statuses[0].get("allocatedResourcesStatus") or []


def health_is(lab: NodeLab, pod: str, health: str) -> bool:
    return [each["health"] for entry in device_health(lab, pod) for each in entry["resources"]] == [health]


@pytest.mark.parametrize("services", [KubeletOptions().health_services, ("v1alpha1.DRAResourceHealth",)])
def test_a_lost_gpu_shows_in_the_pods_status_also_after_a_restart(root: Path, services: tuple[str, ...]) -> None:
    lab = NodeLab(root, options=dataclasses.replace(FAST, health_services=services, health_redial=0.2))
    try:
        plugin = lab.plugin()
        lab.wait_ready()
        run_pod(lab, "p")
        eventually(lambda: health_is(lab, "p", "Healthy"))
        uid = lab.api.get(RESOURCE_CLAIMS, "p", "default")["metadata"]["uid"]
        assert device_health(lab, "p") == [
            {
                "name": "claim:p",
                "resources": [{"resourceID": f"k8s.gpu.nvidia.com/claim={uid}-gpu-0", "health": "Healthy"}],
            }
        ]
        faults.lose_gpu(lab.state, 0)
        eventually(lambda: health_is(lab, "p", "Unhealthy"), timeout=5)
        assert "GPU_IS_LOST" in device_health(lab, "p")[0]["resources"][0]["message"]
        assert lab.cluster.phase("p") == "Running"

        plugin.kill()
        eventually(lambda: health_is(lab, "p", "Unknown"))
        again = lab.plugin()
        eventually(lambda: health_is(lab, "p", "Unhealthy"), timeout=20)
        assert "is not among the GPUs that answer" in device_health(lab, "p")[0]["resources"][0]["message"]
        faults.clear_faults(lab.state)
        eventually(lambda: health_is(lab, "p", "Healthy"), timeout=5)

        began = time.monotonic()
        assert again.terminate() == 0
        assert time.monotonic() - began < 8, "the stream did not hold up the end"
    finally:
        lab.close()


def test_sigterm_lets_a_call_finish(lab: NodeLab) -> None:
    plugin = lab.plugin()
    lab.wait_ready()
    asked, release = threading.Event(), threading.Event()
    read = lab.api.get

    def slow_for_the_plugin(resource: Resource, name: str, namespace: str | None = None) -> Obj:
        if resource == RESOURCE_CLAIMS and not threading.current_thread().name.startswith("kubelet-"):
            asked.set()
            release.wait(10)
        return read(resource, name, namespace)

    lab.api.get = slow_for_the_plugin  # type: ignore[method-assign]
    lab.cluster.claim("p")
    asked.clear()
    lab.cluster.pod("p", "p", reserve=False)
    lab.api.get = read  # type: ignore[method-assign]
    lab.cluster.reserve("p", lab.api.get(PODS, "p", "default"))
    lab.api.get = slow_for_the_plugin  # type: ignore[method-assign]
    assert asked.wait(10)
    plugin.process.send_signal(signal.SIGTERM)
    eventually(lambda: not list(lab.kubelet.registry_dir.iterdir()))
    assert plugin.running
    release.set()
    assert plugin.process.wait(20) == 0
    assert len(cdi_files(lab)) == 1  # done, not broken off


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a signal for one thread of another process")
def test_sigterm_ends_the_plugin_whichever_of_its_threads_takes_it(lab: NodeLab) -> None:
    plugin = lab.plugin()
    lab.wait_ready()
    eventually(lambda: " started " in plugin.output())  # so that the main thread waits
    main = plugin.process.pid
    other = next(int(task.name) for task in Path(f"/proc/{main}/task").iterdir() if task.name != str(main))
    assert ctypes.CDLL(None).tgkill(main, other, signal.SIGTERM) == 0
    assert plugin.process.wait(20) == 0
    assert "stopping: SIGTERM" in plugin.output()


def test_a_signal_shows_what_every_thread_does(lab: NodeLab) -> None:
    plugin = lab.plugin()
    lab.wait_ready()
    plugin.process.send_signal(signal.SIGUSR2)
    eventually(lambda: "observability/loops.py" in plugin.output())
    eventually(lambda: "kubelet_plugin/main.py" in plugin.output())  # threads are written one after the other
    assert plugin.running


def library_mounts(lab: NodeLab) -> set[str]:
    """Driver versions of the libraries that the CDI files mount."""
    said = "".join(path.read_text() for path in lab.cluster.cdi_dir.iterdir())
    return set(re.findall(r"libcuda\.so\.(\d+\.\d+\.\d+)", said))


def test_a_replaced_driver_ends_the_process_and_the_next_one_serves_it(lab: NodeLab) -> None:
    old, new = "580.105.08", "590.44.01"
    plugin = lab.plugin()
    lab.wait_ready()
    run_pod(lab, "p")
    assert library_mounts(lab) == {old}

    # As a package does it: the module is unloaded, the files go, the module comes, the files come.
    replace_driver(lab.state, libraries=None, module=None)
    eventually(lambda: "DRIVER_NOT_LOADED" in lab.condition("HardwareReady")["message"], timeout=20)
    replace_driver(lab.state, libraries=None, module=new)
    eventually(lambda: "library of this process is gone" in lab.condition("HardwareReady")["message"], timeout=20)
    eventually(lambda: "machine" not in lab.status(), timeout=20)
    assert plugin.running, "there is nothing yet that a new process would find"
    assert lab.cluster.phase("p") == "Running"

    replace_driver(lab.state, libraries=new, module=new)
    assert plugin.process.wait(20) == 1
    sentence = (
        f"stopping: the NVIDIA driver was replaced: this process has the library of {old}, the kernel module is {new}"
    )
    assert sentence in plugin.output()
    assert "Traceback" not in plugin.output()
    event = lab.events("DriverReplaced")[0]
    assert (event["type"], event["involvedObject"]["kind"]) == ("Normal", "Node")

    again = lab.plugin()
    eventually(lambda: lab.condition("HardwareReady").get("status") == "True", timeout=20)
    eventually(lambda: lab.status().get("machine", {}).get("driverVersion") == new, timeout=20)
    assert lab.cluster.phase("p") == "Running"
    assert lab.kubelet.wait_for_plugin(DRIVER, timeout=20)
    eventually(lambda: library_mounts(lab) == {new}, timeout=20)  # containers of it that start again find their files
    delete_pod(lab, "p")
    run_pod(lab, "q")
    assert library_mounts(lab) == {new}
    assert again.running


def test_prepared_claims_follow_a_driver_that_comes_after_the_plugin(lab: NodeLab) -> None:
    new = "590.44.01"
    plugin = lab.plugin()
    lab.wait_ready()
    run_pod(lab, "p")
    plugin.kill()
    replace_driver(lab.state, libraries=None, module=None)
    again = lab.plugin()
    eventually(lambda: lab.condition("HardwareReady").get("status") == "False", timeout=20)
    assert lab.kubelet.wait_for_plugin(DRIVER, timeout=20)
    replace_driver(lab.state, libraries=new, module=new)
    eventually(lambda: library_mounts(lab) == {new}, timeout=20)
    assert lab.cluster.phase("p") == "Running"
    assert again.running


def test_a_plugin_that_starts_between_the_parts_of_an_update_waits_and_does_not_end_in_a_circle(lab: NodeLab) -> None:
    old, new = "580.105.08", "590.44.01"
    replace_driver(lab.state, libraries=new, module=old)
    plugin = lab.plugin()
    lab.wait_ready()
    message = lab.condition("HardwareReady")["message"]
    assert f"libnvidia-ml.so.{new} is {new}, the kernel module {old}" in message
    assert "reload the nvidia kernel modules once nothing uses them, or reboot the node" in message
    replace_driver(lab.state, libraries=new, module=new)
    eventually(lambda: lab.condition("HardwareReady")["status"] == "True", timeout=20)
    assert plugin.running


def test_an_idle_plugin_writes_nothing(lab: NodeLab) -> None:
    lab.plugin("--rescan-interval=20ms")
    lab.wait_ready()
    before = lab.api.writes()
    assert not threading.Event().wait(0.2)  # ten readings of the hardware
    assert lab.api.writes() == before


def test_a_kubelet_that_refuses_for_good_ends_the_process_with_its_reason(root: Path) -> None:
    lab = NodeLab(root, options=dataclasses.replace(FAST, known_services=("v7.DRAPlugin",), registration_backoff=0.001))
    try:
        plugin = lab.plugin()
        assert plugin.process.wait(30) == 1
        assert "the kubelet refused this plugin 8 times: invalid supported gRPC versions" in plugin.output()
        assert lab.condition("KubeletRegistered")["reason"] == "Refused"
        assert not list(lab.kubelet.registry_dir.iterdir())
    finally:
        lab.close()


def test_wrong_configuration_is_refused_with_its_name(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kubelet_plugin.main", "--node-name=n", "--cdi-root=relative"],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 2
    assert "--cdi-root" in done.stderr
    assert "absolute path" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_socket_in_use_ends_the_start_with_its_path(lab: NodeLab) -> None:
    lab.plugin(pod_uid="same")
    lab.wait_ready()
    second = lab.plugin(pod_uid="same")
    assert second.process.wait(20) == 1
    assert "another process serves socket" in second.output()
    assert lab.kubelet.wait_for_plugin(DRIVER)


def test_the_plugin_fits_its_memory(root: Path) -> None:
    """A guard against a heavy import (the generated Kubernetes client alone is 20 MiB), not the measurement."""
    with closing(NodeLab(root, start=execute)) as lab:
        plugin: PluginProcess = lab.plugin()
        lab.wait_ready()
        assert plugin.resident_mebibytes() < 85
