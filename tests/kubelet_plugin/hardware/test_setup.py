"""Which root is where: on the host itself, in a container, with a driver container, simulated."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from api.driver_spec import CdiSettings, DriverSpec, HardwareSettings
from dra_driver.cdi.hooks import HookPlace
from dra_driver.cdi.roots import Root
from dra_driver.errors import HardwareError, HardwareUnavailable
from dra_driver.hardware.cgroups import CgroupHierarchy
from dra_driver.hardware.nvml import NvmlHardware
from dra_driver.simulation import hardware as simulation
from dra_driver.simulation.hardware import create_state
from dra_driver.simulation.hardware.memory_limits import use_hierarchy
from kubelet_plugin.hardware.setup import _hooks
from kubelet_plugin.node.hardware import SimulatedHardware, build_hardware, cgroup_hierarchy, driver_root, read_boot_id


def spec(hook: Path | None = None, **hardware: Any) -> DriverSpec:
    return DriverSpec(hardware=HardwareSettings(**hardware), cdi=CdiSettings(hook_path=hook))


def test_outside_a_container_the_driver_root_is_used_as_it_is(tmp_path: Path) -> None:
    assert driver_root(spec(container_driver_root=tmp_path / "absent")) == Root(Path("/"), "/")


def test_in_a_container_the_driver_root_is_seen_elsewhere(tmp_path: Path) -> None:
    found = driver_root(spec(container_driver_root=tmp_path, driver_root=Path("/run/nvidia/driver")))
    assert found == Root(tmp_path, "/run/nvidia/driver")
    assert found.host_path("/usr/bin/nvidia-smi") == "/run/nvidia/driver/usr/bin/nvidia-smi"


def test_hooks_are_looked_for_in_the_driver_root_then_on_the_host(tmp_path: Path) -> None:
    settings = spec(container_driver_root=tmp_path, driver_root=Path("/run/nvidia/driver"), host_root=Path("/host"))
    hooks = _hooks(settings, driver_root(settings), Root(Path("/host"), "/"))
    seen = [(str(hook.root.visible_path(hook.path)), hook.root.host_path(hook.path)) for hook in hooks]
    assert seen == [
        (f"{tmp_path}/usr/bin/nvidia-cdi-hook", "/run/nvidia/driver/usr/bin/nvidia-cdi-hook"),
        ("/host/usr/bin/nvidia-cdi-hook", "/usr/bin/nvidia-cdi-hook"),
        ("/host/usr/local/nvidia/toolkit/nvidia-cdi-hook", "/usr/local/nvidia/toolkit/nvidia-cdi-hook"),
    ]


def test_a_configured_hook_is_the_only_one(tmp_path: Path) -> None:
    settings = spec(Path("/opt/hook"), host_root=Path("/host"))
    assert _hooks(settings, driver_root(settings), Root(Path("/host"), "/")) == (
        HookPlace(Root(Path("/host"), "/"), "/opt/hook", required=True),
    )


def test_simulated_hardware_stays_in_its_own_tree(tmp_path: Path) -> None:
    settings = spec(container_driver_root=tmp_path, driver_root=tmp_path, simulated_state=tmp_path / "gpus.json")
    assert isinstance(build_hardware(settings), SimulatedHardware)
    assert isinstance(build_hardware(spec()), NvmlHardware)
    (hook,) = _hooks(settings, driver_root(settings), Root(Path("/"), "/"))
    assert hook.root.host_path(hook.path) == f"{tmp_path}/usr/bin/nvidia-cdi-hook"


def test_two_threads_that_start_simulated_hardware_install_one_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[Path] = []
    both = threading.Barrier(2)

    def install(state_file: Path) -> None:
        time.sleep(0.05)  # long enough for the other one to come in between, were that possible
        installed.append(state_file)

    monkeypatch.setattr(simulation, "install", install, raising=False)
    hardware = SimulatedHardware(tmp_path / "gpus.json", cast(NvmlHardware, NoNvml()))

    def start() -> None:
        both.wait()
        hardware.start()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(start), pool.submit(start)]:
            done.result()
    assert installed == [tmp_path / "gpus.json"]


class NoNvml:
    def start(self) -> None:
        return


def test_a_missing_state_file_is_named(tmp_path: Path) -> None:
    hardware = build_hardware(spec(simulated_state=tmp_path / "gpus.json"))
    with pytest.raises(HardwareUnavailable, match=r"gpus\.json"):
        hardware.start()


def test_the_boot_id_is_the_kernels_and_a_simulated_nodes_its_own(tmp_path: Path) -> None:
    real = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert read_boot_id(spec(host_root=tmp_path)) == real
    simulated = spec(host_root=tmp_path, simulated_state=tmp_path / "gpus.json")
    with pytest.raises(HardwareError, match="cannot read the boot id"):
        read_boot_id(simulated)  # the kernel's would be another one once the tree is complete
    own = tmp_path / "proc/sys/kernel/random"
    own.mkdir(parents=True)
    (own / "boot_id").write_text("simulated\n")
    assert read_boot_id(simulated) == "simulated"


def test_memory_is_limited_in_the_kernels_cgroup_v2_and_where_a_simulated_node_says(tmp_path: Path) -> None:
    state = tmp_path / "gpus.json"
    assert cgroup_hierarchy(spec()) == CgroupHierarchy(Path("/sys/fs/cgroup"), "")
    with pytest.raises(HardwareUnavailable, match="cannot read simulated hardware"):
        cgroup_hierarchy(spec(simulated_state=state))
    create_state("t4", state)
    assert cgroup_hierarchy(spec(simulated_state=state)) == CgroupHierarchy()
    use_hierarchy(state, CgroupHierarchy(tmp_path, "memory"))
    assert cgroup_hierarchy(spec(simulated_state=state)) == CgroupHierarchy(tmp_path, "memory")
