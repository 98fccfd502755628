"""MPS with plugin and supervisor as real processes on simulated GPUs: what pods get, what dies, what is told of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from dra_driver.hardware.nvml.compute_mode import ComputeMode
from dra_driver.mps.group import GroupState
from dra_driver.processes import Process
from tests.kubelet_plugin.fakes import eventually, short_folder
from tests.kubelet_plugin.kinds.mps.claims import mps_for
from tests.kubelet_plugin.mps_lab import MpsLab
from tests.kubelet_plugin.mps_supervisor.lab import PATIENCE
from tests.kubelet_plugin.mps_supervisor.plain import needs_rights

pytestmark = [pytest.mark.process, pytest.mark.root, needs_rights]

MIG = "gpu-1-mig-1g10gb-19-0"


@pytest.fixture
def lab() -> Iterator[MpsLab]:
    with short_folder() as folder:
        lab = MpsLab(folder)
        try:
            yield lab
        finally:
            lab.close()


@pytest.mark.parametrize("device", ["gpu-1", MIG])
def test_clients_of_a_pod_survive_plugin_and_supervisor_and_nothing_is_left(lab: MpsLab, device: str) -> None:
    supervisor, plugin = lab.mps.process(), lab.plugin()
    lab.wait_ready()
    uid = lab.start_pod("p", device, mps_for(device, defaultActiveThreadPercentage=50))
    lab.runs("p")
    view = lab.kubelet.container_view(uid, "main")
    assert view is not None
    group = lab.group()
    folders = lab.mps.folders(group.group.id)
    assert view.env["CUDA_MPS_PIPE_DIRECTORY"] == "/tmp/nvidia-mps"
    mounts = {mount.container_path: mount.host_path for mount in view.mounts}
    assert (mounts["/tmp/nvidia-mps"], mounts["/dev/shm"]) == (str(folders.pipe), str(folders.shm))
    exclusive = [mode is ComputeMode.EXCLUSIVE_PROCESS for mode in lab.mps.compute_modes()]
    assert exclusive == [n == 1 and device != MIG for n in range(len(exclusive))]
    client = lab.mps.counting(group.group.id)
    plugin.kill()
    supervisor.kill()
    lab.mps.process()
    lab.plugin(pod_uid="pod-2")
    eventually(lambda: lab.kubelet.wait_for_plugin("gpu.nvidia.com", timeout=1), timeout=PATIENCE)
    client.still_counts()
    assert lab.group().pid == group.pid
    client.end()
    lab.delete_pod("p")
    assert lab.mps.client.groups() == ()
    assert lab.mps.left() == []
    assert lab.mig_devices() == 0


@pytest.mark.parametrize("device", ["gpu-1", MIG])
def test_a_daemon_that_dies_is_told_everywhere(lab: MpsLab, device: str) -> None:
    lab.mps.process()
    plugin = lab.plugin("--rescan-interval=1h")  # nothing is found out by chance
    lab.wait_ready()
    lab.start_pod("p", device)
    lab.runs("p")
    group = lab.group()
    daemon = Process.of(group.pid)
    assert daemon is not None
    daemon.end(signal.SIGKILL, timeout=PATIENCE)
    (event,) = eventually(lambda: lab.events("MpsDaemonDied"), timeout=PATIENCE)
    assert (event["involvedObject"]["kind"], event["involvedObject"]["name"]) == ("Pod", "p")
    assert f"the MPS daemon of group {group.group.id} is dead" in event["message"]
    eventually(lambda: set(lab.unhealthy()) == {device}, timeout=PATIENCE)
    eventually(lambda: [each["health"] for each in lab.health("p")] == ["Unhealthy"], timeout=PATIENCE)
    assert f"MPS daemon of group {group.group.id} is dead" in lab.health("p")[0]["message"]
    lab.delete_pod("p")
    eventually(lambda: lab.unhealthy() == {}, timeout=PATIENCE)
    assert lab.mps.left() == []
    assert "Traceback" not in plugin.output()


def test_without_a_supervisor_a_pod_waits_and_is_told_what_to_do(lab: MpsLab) -> None:
    plugin = lab.plugin()
    lab.wait_ready()
    lab.start_pod("p", MIG)
    (event, *_more) = eventually(lambda: lab.events("MpsSupervisorUnavailable"), timeout=PATIENCE)
    assert "no MPS supervisor serves this node" in event["message"]
    assert "switch the MPS supervisor on" in event["message"]
    assert lab.mig_devices() == 0
    lab.mps.process()
    lab.runs("p")
    assert lab.group().state is GroupState.READY
    lab.delete_pod("p")
    assert plugin.terminate() == 0
