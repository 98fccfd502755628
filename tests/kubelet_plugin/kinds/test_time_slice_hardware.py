"""The same cases on the fake in memory, in this process and with nvidia-smi as a program: what all must answer alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.claim_config import TimeSliceInterval
from dra_driver.errors import HardwareError
from dra_driver.hardware.compute_policy import ComputePolicy, TimeSliceUnsupported
from dra_driver.hardware.nvidia_smi import NvidiaSmi, SmiHangs
from dra_driver.hardware.nvml import NvmlHardware
from dra_driver.hardware.nvml.codes import Return
from dra_driver.hardware.nvml.compute_mode import ComputeMode, set_compute_mode
from dra_driver.hardware.sysfs import Sysfs
from dra_driver.simulation.hardware import StateFile, create_state, faults, host_root, install, time_slice, uninstall
from kubelet_plugin.hardware.time_slices import TimeSliceHardware
from tests.kubelet_plugin.kinds.fake_time_slices import FakeTimeSlices
from tests.kubelet_plugin.kinds.smi_here import SmiHere
from tests.kubelet_plugin.prepare.simulated_node import first_gpus


@dataclass
class Lab:
    """Two GPUs, and what can happen to the second."""

    hardware: TimeSliceHardware
    gpus: tuple[str, str]
    make_exclusive: Callable[[], None]
    take_interval_away: Callable[[], None]
    lose: Callable[[], None]


def _fake(folder: Path) -> Iterator[Lab]:
    fake = FakeTimeSlices()
    yield Lab(
        fake,
        ("GPU-0", "GPU-1"),
        lambda: fake.exclusive.add("GPU-1"),
        lambda: fake.unsupported.add("GPU-1"),
        lambda: fake.gone.add("GPU-1"),
    )


def _here(folder: Path) -> Iterator[Lab]:
    yield from _simulated(folder, SmiHere)


def _program(folder: Path) -> Iterator[Lab]:
    yield from _simulated(folder, lambda _hardware: NvidiaSmi(folder / "root", 30.0, lambda: None))


def _simulated(folder: Path, smi: Callable[[NvmlHardware], SmiHere | NvidiaSmi]) -> Iterator[Lab]:
    state = folder / "state.json"
    create_state(first_gpus("h100-sxm5-80gb", 2), state, seed="node-0")
    host_root.build(folder / "root", state)
    install(state)
    hardware = NvmlHardware(driver_root=folder / "root", topology=Sysfs(folder / "root"))
    hardware.start()
    first, second = (gpu.uuid for gpu in hardware.read_machine().gpus)

    def take_interval_away() -> None:
        for function in (time_slice.LIST, time_slice.SET):
            faults.inject_error(state, function, Return.NOT_SUPPORTED, gpu=1)

    yield Lab(
        ComputePolicy(smi(hardware)),
        (first, second),
        lambda: set_compute_mode(second, ComputeMode.EXCLUSIVE_PROCESS),
        take_interval_away,
        lambda: faults.lose_gpu(state, 1),
    )
    hardware.stop()
    uninstall()


@pytest.fixture(params=[_fake, _here, _program], ids=["fake", "here", "program"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    make: Callable[[Path], Iterator[Lab]] = request.param
    yield from make(tmp_path)


def test_an_interval_is_set_and_seen_and_the_other_gpu_keeps_its_own(lab: Lab) -> None:
    first, second = lab.gpus
    for interval in (TimeSliceInterval.LONG, TimeSliceInterval.SHORT, TimeSliceInterval.DEFAULT):
        lab.hardware.set_interval(second, interval)
        lab.hardware.set_interval(second, interval)
        assert lab.hardware.interval(second) is interval
        assert lab.hardware.interval(first) is TimeSliceInterval.DEFAULT


def test_an_exclusive_gpu_is_made_shared(lab: Lab) -> None:
    first, second = lab.gpus
    lab.make_exclusive()
    assert (lab.hardware.allows_sharing(first), lab.hardware.allows_sharing(second)) == (True, False)
    lab.hardware.allow_sharing(second)
    assert lab.hardware.allows_sharing(second)


def test_a_gpu_without_an_interval_says_so(lab: Lab) -> None:
    _first, second = lab.gpus
    lab.take_interval_away()
    with pytest.raises(TimeSliceUnsupported, match=second):
        lab.hardware.set_interval(second, TimeSliceInterval.LONG)
    with pytest.raises(TimeSliceUnsupported, match=second):
        lab.hardware.interval(second)
    assert lab.hardware.is_there(second)


def test_a_lost_gpu_is_not_there_and_can_be_asked_nothing(lab: Lab) -> None:
    first, second = lab.gpus
    lab.lose()
    assert (lab.hardware.is_there(first), lab.hardware.is_there(second)) == (True, False)
    with pytest.raises(HardwareError):
        lab.hardware.set_interval(second, TimeSliceInterval.LONG)
    with pytest.raises(HardwareError):
        lab.hardware.interval(second)
    with pytest.raises(HardwareError):
        lab.hardware.allows_sharing(second)


def test_a_simulated_nvidia_smi_that_hangs_is_killed(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    create_state(first_gpus("h100-sxm5-80gb", 2), state, seed="node-0")
    host_root.build(tmp_path / "root", state)
    faults.inject_latency(state, time_slice.SET, 600.0, gpu=1)
    policy = ComputePolicy(NvidiaSmi(tmp_path / "root", 3.0, lambda: None))
    with pytest.raises(SmiHangs, match="--set-timeslice 3 did not end within 3 s and was killed"):
        policy.set_interval(StateFile(state).read().gpus[1].uuid, TimeSliceInterval.LONG)
