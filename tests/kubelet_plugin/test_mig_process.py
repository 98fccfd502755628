"""MIG devices with the plugin as a real process: what containers get, what the API is told, and a kill in the middle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.node_inventory import MachineStatus
from dra_driver.hardware.inventory import machine_from_status
from dra_driver.hardware.model import Gpu, MigPlacement
from dra_driver.hardware.nvml import MigControl, NvmlHardware
from dra_driver.hardware.sysfs import Sysfs
from dra_driver.kube.interface import PODS, RESOURCE_CLAIMS
from dra_driver.simulation.hardware import faults, install, uninstall
from tests.kubelet_plugin.fakes import eventually
from tests.kubelet_plugin.node_lab import NodeLab

pytestmark = pytest.mark.process

DEVICE = "gpu-1-mig-3g40gb-9-4"


class MigLab(NodeLab):
    """A node of H100s; this process looks at the same simulated GPUs as the plugin."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, "h100-sxm5-80gb")
        install(self.state)
        self.hardware = NvmlHardware(driver_root=self.host, topology=Sysfs(self.host))
        self.hardware.start()
        self.control = MigControl()
        self.gpu: Gpu = next(gpu for gpu in self.hardware.read_machine().gpus if gpu.minor == 1)

    def close(self) -> None:
        self.hardware.stop()
        uninstall()
        super().close()

    def start_pod(self, name: str) -> str:
        """A pod with :data:`DEVICE`; its UID."""
        self.cluster.claim(name, device=DEVICE)
        return str(self.cluster.pod(name, name)["metadata"]["uid"])

    def runs(self, name: str) -> None:
        eventually(lambda: self.cluster.phase(name) == "Running", timeout=30)

    def delete_pod(self, name: str) -> None:
        self.api.delete(PODS, name, "default")
        eventually(lambda: self.cluster.gone(name), timeout=20)
        self.api.delete(RESOURCE_CLAIMS, name, "default")

    def capabilities(self) -> list[str]:
        """The files of GPU 1's instances that the kernel module shows."""
        folder = self.host / "proc/driver/nvidia/capabilities/gpu1"
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    def foreign(self) -> list[int]:
        """Placement starts of the foreign instances of GPU 1, as the inventory tells them."""
        machine = machine_from_status(MachineStatus.model_validate(self.status()["machine"]))
        told = next(gpu for gpu in machine.gpus if gpu.minor == 1)
        return [each.placement.start for each in (told.mig.instances if told.mig else ()) if each.foreign]


@pytest.fixture
def lab(root: Path) -> Iterator[MigLab]:
    lab = MigLab(root)
    yield lab
    lab.close()


def test_a_container_sees_its_mig_device_and_the_api_nothing_of_it(lab: MigLab) -> None:
    plugin = lab.plugin()
    lab.wait_ready()
    time.sleep(1.0)
    version = lab.inventory()["metadata"]["resourceVersion"]
    uid = lab.start_pod("p")
    lab.runs("p")
    (instance,) = lab.control.instances(lab.gpu.uuid)
    assert (instance.profile_id, instance.placement.start) == (9, 4)
    view = lab.kubelet.container_view(uid, "main")
    assert view is not None
    paths = {node.path for node in view.device_nodes}
    assert {path for path in paths if path.startswith("/dev/nvidia") and path[11:].isdigit()} == {"/dev/nvidia1"}
    assert len([path for path in paths if "nvidia-caps" in path]) == 2
    lab.delete_pod("p")
    assert lab.control.instances(lab.gpu.uuid) == ()
    assert lab.control.mode(lab.gpu.uuid) == (False, False)
    assert lab.capabilities() == []
    time.sleep(1.0)  # several readings
    assert lab.inventory()["metadata"]["resourceVersion"] == version
    assert plugin.terminate() == 0
    assert "Traceback" not in plugin.output()


def test_an_instance_made_by_hand_is_told_and_survives_everything(lab: MigLab) -> None:
    lab.plugin()
    lab.wait_ready()
    lab.control.set_mode(lab.gpu.uuid, True)
    made = lab.control.create_gpu_instance(lab.gpu.uuid, 14, MigPlacement(0, 2))
    lab.control.create_compute_instance(lab.gpu.uuid, made, 2)
    eventually(lambda: lab.foreign() == [0], timeout=10)
    lab.start_pod("p")
    lab.runs("p")
    assert len(lab.control.instances(lab.gpu.uuid)) == 2
    lab.delete_pod("p")
    assert [each.placement.start for each in lab.control.instances(lab.gpu.uuid)] == [0]
    assert lab.foreign() == [0]
    (instance,) = lab.control.instances(lab.gpu.uuid)
    lab.control.destroy_compute_instance(lab.gpu.uuid, instance.id, instance.compute_instances[0].id)
    lab.control.destroy_gpu_instance(lab.gpu.uuid, instance.id)
    eventually(lambda: lab.foreign() == [], timeout=10)


def test_a_plugin_killed_while_it_makes_an_instance(lab: MigLab) -> None:
    faults.inject_latency(lab.state, "nvmlGpuInstanceCreateComputeInstance", 30.0)
    plugin = lab.plugin()
    lab.wait_ready()
    lab.start_pod("p")
    eventually(lambda: lab.control.instances(lab.gpu.uuid), timeout=20)
    plugin.kill()
    faults.clear_faults(lab.state)
    lab.plugin(pod_uid="pod-2")
    lab.runs("p")
    (instance,) = lab.control.instances(lab.gpu.uuid)
    assert len(instance.compute_instances) == 1
    lab.delete_pod("p")
    assert lab.control.instances(lab.gpu.uuid) == ()
    assert lab.capabilities() == []
