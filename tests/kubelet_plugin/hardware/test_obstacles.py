"""What cannot be prepared is not offered: found with each reading, told everywhere, and over when its reason is."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from api.node_inventory import Registration
from dra_driver.cdi.edits import DriverEdits
from dra_driver.cdi.hooks import HookPlace
from dra_driver.cdi.mig_capabilities import capability_major
from dra_driver.cdi.roots import DriverRoots, Root
from dra_driver.hardware.model import Machine, MigState
from dra_driver.hardware.nvml import GpuProblem, Reading
from kubelet_plugin.endpoint.connection import KubeletConnection
from kubelet_plugin.endpoint.self_check import hardware_check
from kubelet_plugin.hardware.obstacles import Obstacle, obstacles_of
from kubelet_plugin.hardware.watch import HardwareState, HardwareWatch
from kubelet_plugin.inventory.status import build_status, hardware_condition
from kubelet_plugin.telling.metrics import PluginCollector
from tests.cdi.driver_root import VERSION, add_file, small_root
from tests.cdi.test_conformance import gpu
from tests.kubelet_plugin.fakes import eventually

MACHINE = Machine(VERSION, 13000, (gpu(0), gpu(1)))
HOOK = "/usr/bin/nvidia-cdi-hook"


class Hardware:
    def __init__(self) -> None:
        self.stops = 0

    def start(self) -> None:
        """Nothing to load."""

    def stop(self) -> None:
        self.stops += 1

    def read(self) -> Reading:
        return Reading(MACHINE)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return small_root(tmp_path / "host")


@pytest.fixture
def hardware() -> Hardware:
    return Hardware()


@pytest.fixture
def watch(host: Path, hardware: Hardware) -> Iterator[HardwareWatch]:
    edits = DriverEdits(DriverRoots(Root(host), sysfs=host / "sys"), [HookPlace(Root(host), HOOK)])
    watch = HardwareWatch(hardware, 0, obstacles=obstacles_of(edits, lambda: None), retry=0.01)
    yield watch
    watch.stop()


def published(state: HardwareState) -> list[str] | None:
    """The UUIDs in a NodeInventory of this state; None without a machine in it."""
    machine = build_status(state, Registration(), None, None).machine
    return None if machine is None else [each.uuid for each in machine.gpus]


def test_what_can_be_prepared_is_offered(watch: HardwareWatch) -> None:
    watch.scan()
    assert watch.state.obstacles == ()
    assert published(watch.state) == ["GPU-0", "GPU-1"]
    assert hardware_check(watch) is None


def test_without_driver_files_no_gpu_is_offered_and_everyone_is_told(
    watch: HardwareWatch, hardware: Hardware, host: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (host / "usr/lib64").rename(host / "away")
    with caplog.at_level(logging.ERROR):
        watch.scan()
        watch.scan()
    assert published(watch.state) is None
    condition = hardware_condition(watch.state)
    assert (condition.status, condition.reason) == ("False", "NotPreparable")
    assert condition.message.startswith("no GPU is offered: no NVIDIA driver libraries in driver root /")
    ready = hardware_check(watch)
    assert ready is not None
    assert "no NVIDIA driver libraries" in ready
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("no GPU of this node is offered, since")
    assert watch.machine() == MACHINE, "unprepare and MIG go on with it"
    assert hardware.stops == 0, "NVML is well"


def test_a_hook_that_cannot_be_run_keeps_all_gpus_back(watch: HardwareWatch, host: Path) -> None:
    hook = add_file(host, HOOK)
    watch.scan()
    assert published(watch.state) is None
    assert f"{HOOK} (seen here as {hook}) is not executable" in watch.state.obstacle
    hook.chmod(0o755)
    watch.scan()
    assert published(watch.state) == ["GPU-0", "GPU-1"]


def test_a_gpu_without_its_device_node_is_kept_back_alone(watch: HardwareWatch, host: Path) -> None:
    (host / "dev/nvidia1").unlink()
    watch.scan()
    assert published(watch.state) == ["GPU-0"]
    condition = hardware_condition(watch.state)
    assert (condition.status, condition.reason) == ("False", "NotPreparable")
    assert "GPU GPU-1 is not offered: /dev/nvidia1 of GPU GPU-1 not found" in condition.message
    assert hardware_check(watch) is None, "the others are served"


def test_it_is_over_by_itself_even_without_regular_readings(watch: HardwareWatch, host: Path) -> None:
    (host / "dev/nvidia-uvm").rename(host / "dev/away")
    watch.start()
    assert watch.wait_for_first_reading(5)
    assert published(watch.state) is None
    (host / "dev/away").rename(host / "dev/nvidia-uvm")
    eventually(lambda: published(watch.state) == ["GPU-0", "GPU-1"])


def test_a_gpu_that_cannot_be_read_is_told_beside_one_that_is_kept_back() -> None:
    problems = (GpuProblem(3, "GPU-3", None, True, "lost"),)
    state = HardwareState(True, MACHINE, "", problems, obstacles=(Obstacle("no node", "GPU-1"),))
    condition = hardware_condition(state)
    assert condition.reason == "GpuUnreadable"
    assert condition.message == "GPU 3: lost; GPU GPU-1 is not offered: no node"


def test_a_node_without_gpus_needs_no_driver_files(host: Path) -> None:
    (host / "usr/lib64").rename(host / "away")
    look = obstacles_of(DriverEdits(DriverRoots(Root(host), sysfs=host / "sys")), lambda: None)
    assert look(dataclasses.replace(MACHINE, gpus=())) == ()
    assert len(look(MACHINE)) == 1


def test_a_gpu_in_mig_mode_needs_the_capability_nodes_of_the_kernel(host: Path) -> None:
    edits = DriverEdits(DriverRoots(Root(host), sysfs=host / "sys"))
    look = obstacles_of(edits, lambda: capability_major(host))
    mig = MigState(enabled=True, pending=True)
    machine = dataclasses.replace(MACHINE, gpus=(gpu(0), dataclasses.replace(gpu(1), mig=mig)))
    (obstacle,) = look(machine)
    assert obstacle.uuid == "GPU-1"
    assert "proc/devices names no character device nvidia-caps" in obstacle.message
    add_file(host, "/proc/devices", b"Character devices:\n236 nvidia-caps\n")
    assert look(machine) == ()


def test_gpus_that_are_kept_back_are_counted(watch: HardwareWatch, host: Path) -> None:
    registry = CollectorRegistry()
    registry.register(PluginCollector("node-0", "gpu.nvidia.com", watch, KubeletConnection(Path("/none")), dict))
    watch.scan()
    assert registry.get_sample_value("gpu_dra_gpus_withheld") == 0
    (host / "dev/nvidia1").unlink()
    watch.scan()
    assert registry.get_sample_value("gpu_dra_gpus_withheld") == 1
    (host / "dev/nvidiactl").unlink()
    watch.scan()
    assert registry.get_sample_value("gpu_dra_gpus_withheld") == 2
