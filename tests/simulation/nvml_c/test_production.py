"""Production code meets the C library: in a process of its own, and the plugin as a process without simulation."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.node_inventory import MachineStatus
from dra_driver.hardware.inventory import machine_from_status
from dra_driver.hardware.model import MigPlacement
from dra_driver.hardware.nvml import MigControl, NvmlHardware
from dra_driver.hardware.sysfs import Sysfs
from dra_driver.kube.interface import PODS
from dra_driver.simulation.hardware import StateFile, faults, install, uninstall
from tests.kubelet_plugin.fakes import eventually, short_folder
from tests.kubelet_plugin.node_lab import NodeLab, PluginProcess
from tests.programs import execute
from tests.simulation.nvml_c import production
from tests.simulation.nvml_c.twins import SimulatedNode, needs_compiler

pytestmark = [needs_compiler, pytest.mark.process]


@pytest.mark.parametrize("machine", ["h100-sxm5-80gb", "h200", "b200"])
def test_production_code_sees_the_same_through_either(tmp_path: Path, machine: str) -> None:
    python, c = (SimulatedNode(tmp_path / name, machine, None) for name in ("python", "c"))
    command = [sys.executable, "-m", production.__name__, str(c.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    install(python.state_file)
    try:
        wanted = json.loads(json.dumps(list(production.look(python.root))))
    finally:
        uninstall()
    seen = json.loads(done.stdout)
    assert [name for name, _ in seen] == [name for name, _ in wanted]
    for (name, mine), (_, theirs) in zip(seen, wanted, strict=True):
        assert mine == theirs, name
    assert [each for name, value in seen if name == "changes" for each in value if each] != []
    assert c.state == python.state


class CNodeLab(NodeLab):
    """Its plugin has no simulated state: it loads the driver root's library, as on a node."""

    def arguments(self, *extra: str, pod_uid: str = "pod-1") -> list[str]:
        given = super().arguments(*extra, pod_uid=pod_uid)
        return [each for each in given if not each.startswith("--simulated-state=")]


@pytest.fixture
def lab() -> Iterator[CNodeLab]:
    with short_folder() as root:
        lab = CNodeLab(root, "h100-sxm5-80gb", start=execute)
        yield lab
        lab.close()


def run_pod(lab: NodeLab, device: str) -> set[str]:
    """A pod with a claim on the device, until it runs; the device nodes of its container."""
    lab.cluster.claim(device, device=device)
    pod = lab.cluster.pod(device, device)
    eventually(lambda: lab.cluster.phase(device) == "Running", timeout=30)
    view = lab.kubelet.container_view(pod["metadata"]["uid"], "main")
    assert view is not None
    return {node.path for node in view.device_nodes}


def end_pod(lab: NodeLab, device: str) -> None:
    lab.api.delete(PODS, device, "default")
    eventually(lambda: lab.cluster.gone(device), timeout=30)


def mapped(plugin: PluginProcess) -> str:
    return Path(f"/proc/{plugin.process.pid}/maps").read_text()


def test_the_plugin_prepares_on_the_c_library(lab: CNodeLab) -> None:
    plugin = lab.plugin()
    lab.wait_ready()
    assert f"{lab.host}/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.105.08" in mapped(plugin)
    assert len(lab.status()["machine"]["gpus"]) == 8
    assert "/dev/nvidia0" in run_pod(lab, "gpu-0")
    caps = {path for path in run_pod(lab, "gpu-1-mig-3g40gb-9-4") if "nvidia-caps" in path}
    assert len(caps) == 2
    (instance,) = StateFile(lab.state).read().gpus[1].instances
    assert (instance.profile, instance.start, len(instance.compute_instances)) == (9, 4, 1)
    end_pod(lab, "gpu-1-mig-3g40gb-9-4")
    end_pod(lab, "gpu-0")
    assert StateFile(lab.state).read().gpus[1].instances == ()
    assert not list((lab.host / "proc/driver/nvidia/capabilities").rglob("gi*"))
    faults.lose_gpu(lab.state, 3)
    eventually(lambda: len(lab.status()["machine"]["gpus"]) == 7, timeout=20)
    assert plugin.terminate() == 0
    assert "Traceback" not in plugin.output()


def foreign(lab: NodeLab) -> list[int]:
    """Where GPU 2 has instances that no claim made, as the inventory tells it."""
    machine = machine_from_status(MachineStatus.model_validate(lab.status()["machine"]))
    gpu = next(gpu for gpu in machine.gpus if gpu.minor == 2)
    return [each.placement.start for each in (gpu.mig.instances if gpu.mig else ()) if each.foreign]


def test_an_instance_made_through_python_is_an_event_in_c(lab: CNodeLab) -> None:
    lab.plugin("--rescan-interval=10m")  # so that it is found by events only
    lab.wait_ready()
    install(lab.state)
    hardware, control = NvmlHardware(driver_root=lab.host, topology=Sysfs(lab.host)), MigControl()
    try:
        hardware.start()
        uuid = next(gpu.uuid for gpu in hardware.read_machine().gpus if gpu.minor == 2)
        control.set_mode(uuid, True)
        made = control.create_gpu_instance(uuid, 14, MigPlacement(2, 2))
        control.create_compute_instance(uuid, made, 2)

        def seen() -> bool:
            """With another event each time: the plugin may have been about to register."""
            control.destroy_gpu_instance(uuid, control.create_gpu_instance(uuid, 14, MigPlacement(4, 2)))
            return foreign(lab) == [2]

        eventually(seen, timeout=20)
        hardware.stop()
    finally:
        uninstall()
