"""MPS with plugin and supervisor as real processes on simulated GPUs: what pods get, what dies, what is told of it."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.node_inventory import MachineStatus
from dra_driver.hardware.inventory import machine_from_status
from dra_driver.hardware.nvml.compute_mode import ComputeMode
from dra_driver.kube.interface import PODS, RESOURCE_CLAIMS, Obj
from dra_driver.mps.group import GroupState, GroupStatus
from dra_driver.processes import Process
from dra_driver.simulation.hardware import StateFile
from tests.kubelet_plugin.fakes import FAST, eventually, short_folder
from tests.kubelet_plugin.kinds.mps.claims import mps_for
from tests.kubelet_plugin.mps_supervisor.lab import MACHINE, PATIENCE, Lab
from tests.kubelet_plugin.mps_supervisor.plain import needs_rights
from tests.kubelet_plugin.node_lab import NodeLab

pytestmark = [pytest.mark.process, pytest.mark.root, needs_rights]

MIG = "gpu-1-mig-1g10gb-19-0"


class MpsLab(NodeLab):
    """A node of H100s with a supervisor; ``mps`` looks at what it runs."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, MACHINE, dataclasses.replace(FAST, health_redial=0.2))
        self.mps = Lab(root)

    def close(self) -> None:
        self.mps.close()
        super().close()

    def start_pod(self, name: str, device: str, config: Obj | None = None) -> str:
        """A pod with ``device``, through MPS unless said otherwise; its UID."""
        self.cluster.claim(name, device=device, configs=[config or mps_for(device)])
        return str(self.cluster.pod(name, name)["metadata"]["uid"])

    def runs(self, name: str) -> None:
        eventually(lambda: self.cluster.phase(name) == "Running", timeout=PATIENCE)

    def delete_pod(self, name: str) -> None:
        self.api.delete(PODS, name, "default")
        eventually(lambda: self.cluster.gone(name), timeout=PATIENCE)
        self.api.delete(RESOURCE_CLAIMS, name, "default")

    def group(self) -> GroupStatus:
        (status,) = self.mps.client.groups()
        return status

    def mig_devices(self) -> int:
        return sum(len(list(gpu.mig_devices())) for gpu in StateFile(self.state).read().gpus)

    def unhealthy(self) -> dict[str, str]:
        """As the inventory tells them."""
        machine = machine_from_status(MachineStatus.model_validate(self.status()["machine"]))
        return {each.device: each.message for gpu in machine.gpus for each in gpu.mps_unhealthy}

    def health(self, pod: str) -> list[dict[str, Any]]:
        statuses = self.api.get(PODS, pod, "default")["status"].get("containerStatuses") or [{}]
        return [each for entry in statuses[0].get("allocatedResourcesStatus") or () for each in entry["resources"]]


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
