"""Layouts through the real adapter on the strict simulated NVML: what is planned is what hardware accepts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.mig_layouts import LayoutEntry, split_profile
from dra_driver.hardware.model import Gpu
from dra_driver.hardware.nvml import MigControl, NvmlHardware
from dra_driver.hardware.nvml.binding import call
from dra_driver.hardware.sysfs import Sysfs
from dra_driver.simulation.hardware import create_state, faults, host_root, install, uninstall
from kubelet_plugin.hardware.mig import look
from kubelet_plugin.kinds.mig.layout import GpuLayout, LayoutState, bring_about
from tests.devices.recorded import mig_machines

ROUNDS = 40


@contextmanager
def node(folder: Path, machine: str) -> Iterator[NvmlHardware]:
    create_state(machine, folder / "state.json", seed="node-0")
    host_root.build(folder / "root", folder / "state.json")
    install(folder / "state.json")
    hardware = NvmlHardware(driver_root=folder / "root", topology=Sysfs(folder / "root"))
    hardware.start()
    try:
        yield hardware
    finally:
        hardware.stop()
        uninstall()


def entry(devices: Mapping[str, int]) -> LayoutEntry:
    return LayoutEntry.model_validate({"devices": "all", "mig-enabled": True, "mig-devices": dict(devices)})


def devices_on(gpu: Gpu) -> Counter[tuple[str, int]]:
    """MIG devices by the profile of their GPU instance and their compute slices."""
    found = look(MigControl(), gpu.uuid).instances
    return Counter((each.profile_name, compute.slices) for each in found for compute in each.compute_instances)


def wish(gpu: Gpu, choice: random.Random) -> dict[str, int]:
    """Some devices, parts of GPU instances among them; more than fit as often as not."""
    assert gpu.mig is not None
    names = [profile.name for profile in gpu.mig.profiles]
    parts = [f"{c}c.{each.name}" for each in gpu.mig.profiles for c in (1, 2) if c < each.slice_count]
    chosen = choice.sample([*names, *parts], choice.randint(1, 3))
    return {name: choice.randint(1, 3) for name in chosen}


def wanted(gpu: Gpu, devices: Mapping[str, int]) -> Counter[tuple[str, int]]:
    assert gpu.mig is not None
    slices = {profile.name: profile.slice_count for profile in gpu.mig.profiles}
    found: Counter[tuple[str, int]] = Counter()
    for key, count in devices.items():
        compute, name = split_profile(key)
        found[name, compute or slices[name]] += count
    return found


@pytest.mark.parametrize("machine", mig_machines())
def test_every_plan_is_accepted_one_layout_after_another(tmp_path: Path, machine: str) -> None:
    choice = random.Random(machine)
    with node(tmp_path, machine) as hardware:
        gpu = hardware.read_machine().gpus[0]
        if not gpu.cuda_compute_capability.startswith(("9", "1")):  # Ampere: somebody has reset it with MIG mode on
            _switch_on(tmp_path, hardware, gpu)
        outcomes: Counter[LayoutState] = Counter()
        for _ in range(ROUNDS):
            devices = wish(gpu, choice)
            before = devices_on(gpu)
            outcome = bring_about(GpuLayout(gpu, "x", entry(devices)), MigControl(), ())
            outcomes[outcome.state] += 1
            assert outcome.state in (LayoutState.APPLIED, LayoutState.REFUSED), (devices, outcome)
            assert devices_on(gpu) == (wanted(gpu, devices) if outcome.state is LayoutState.APPLIED else before)
        assert outcomes[LayoutState.APPLIED] > 3


def _switch_on(folder: Path, hardware: NvmlHardware, gpu: Gpu) -> None:
    call("nvmlDeviceSetMigMode", call("nvmlDeviceGetHandleByUUID", gpu.uuid, device=gpu.uuid), 1, device=gpu.uuid)
    faults.reset_gpu(folder / "state.json", gpu.index)


def test_a_process_on_the_gpu_keeps_its_mode(tmp_path: Path) -> None:
    with node(tmp_path, "h100-sxm5-80gb") as hardware:
        gpu = hardware.read_machine().gpus[0]
        faults.add_client(tmp_path / "state.json", gpu.uuid)
        asked = GpuLayout(gpu, "x", entry({"7g.80gb": 1}))
        outcome = bring_about(asked, MigControl(), ())
        assert outcome.state is LayoutState.FAILED
        assert "a process uses the GPU" in outcome.message or "processes hold the GPU" in outcome.message
        faults.remove_client(tmp_path / "state.json", gpu.uuid)
        assert bring_about(asked, MigControl(), ()).state is LayoutState.APPLIED
