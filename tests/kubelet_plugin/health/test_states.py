"""Which devices are told, and how each is."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from api.mig_policy import MigMode
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.model import DeviceKind
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.devices.selector import GpuSelector
from dra_driver.hardware.model import Gpu, Machine, MigState
from dra_driver.hardware.nvml import GpuProblem
from dra_driver.simulation.hardware import recorded_machines
from kubelet_plugin.hardware.watch import HardwareState
from kubelet_plugin.health.states import NOT_READ, DeviceHealth, DeviceUuids, Health, device_health, remember
from tests.devices.recorded import recorded, recorded_gpu


def gpu(minor: int, uuid: str = "") -> Gpu:
    return Gpu(minor, minor, uuid or f"GPU-{minor}", "NVIDIA A30", "Nvidia", "Ampere", "8.0", f"0000:{minor:02x}:00.0")


def state(*gpus: Gpu, problems: tuple[GpuProblem, ...] = ()) -> HardwareState:
    return HardwareState(True, Machine("580", 13000, gpus), "", problems)


def lost(index: int, uuid: str | None, message: str = "it fell off the bus") -> GpuProblem:
    return GpuProblem(index, uuid, None, True, message)


def healthy(*names: str) -> tuple[DeviceHealth, ...]:
    return tuple(DeviceHealth(name, Health.HEALTHY) for name in names)


NONE: DeviceUuids = {}


DEFAULT = MigPolicy()


def seen(hardware: HardwareState, policy: MigPolicy = DEFAULT) -> DeviceUuids:
    return remember(NONE, hardware.machine, policy, "node-1")


def offered(policy: MigPolicy, *gpus: Gpu) -> tuple[DeviceHealth, ...]:
    """What is told of a node that nothing was known of before."""
    return device_health(state(*gpus), seen(state(*gpus), policy), NONE)


def test_what_answers_is_healthy() -> None:
    assert offered(DEFAULT, gpu(1), gpu(0)) == healthy("gpu-0", "gpu-1")
    assert offered(DEFAULT) == ()


def test_a_gpu_that_is_offered_only_in_parts_is_no_device() -> None:
    partitioned = replace(gpu(0), mig=MigState(enabled=True, pending=True))
    assert offered(DEFAULT, partitioned, gpu(1)) == healthy("gpu-1")
    assert device_health(state(partitioned), NONE, {"gpu-0": "GPU-0"}) == healthy("gpu-0"), "held since before"


def test_a_gpu_that_is_divided_for_claims_is_a_device_all_the_same() -> None:
    assert offered(DEFAULT, recorded_gpu("h100-sxm5-80gb")) == healthy("gpu-0")


@pytest.mark.parametrize("mode", [MigMode.STATIC, MigMode.OFF])
def test_a_gpu_in_mig_mode_that_a_rule_keeps_from_claims_is_no_device(mode: MigMode) -> None:
    """On Hopper too, where the mode could be changed at once: nobody does."""
    on, off = (recorded_gpu("h100-sxm5-80gb", enabled=enabled) for enabled in (True, False))
    policy = MigPolicy((MigRule(mode=mode),))
    assert offered(policy, on) == ()
    assert offered(policy, off) == healthy("gpu-0")
    before = remember(NONE, Machine("580", 13000, (off,)), policy, "node-1")
    assert remember(before, Machine("580", 13000, (on,)), policy, "node-1") == NONE, "its mode was switched on"


@pytest.mark.parametrize("mig_on", [True, False], ids=["on", "off"])
@pytest.mark.parametrize("name", recorded_machines())
def test_the_whole_gpus_that_are_told_are_those_that_are_offered(name: str, mig_on: bool) -> None:
    machine = recorded(name, mig_on=mig_on)
    first = GpuSelector(minors=(0,))
    rules: list[tuple[MigRule, ...]] = [(), *((MigRule(mode=mode),) for mode in MigMode)]
    rules += [(MigRule(first, mode),) for mode in MigMode]
    rules += [(MigRule(GpuSelector(nodes=(node,)), MigMode.STATIC),) for node in ("node-1", "node-2")]
    for each, dynamic in product(rules, (True, False)):
        policy = MigPolicy(each, dynamic_by_default=dynamic)
        devices = allocatable_devices(machine, DevicePolicy(mig=policy), "node-1").devices
        whole = {device.name: device.gpu_uuid for device in devices if device.kind is DeviceKind.GPU}
        assert remember(NONE, machine, policy, "node-1") == whole, policy


def test_a_mig_device_is_as_well_as_its_gpu_and_has_to_be_there() -> None:
    held = {"gpu-0-mig-1g5gb-19-0": "GPU-0", "gpu-0-mig-1g5gb-19-1": "GPU-0"}
    assert device_health(state(gpu(0)), seen(state(gpu(0))), held) == healthy("gpu-0", *held)
    told = device_health(state(gpu(0)), seen(state(gpu(0))), held, {"gpu-0-mig-1g5gb-19-1": "it is gone"})
    assert told == (
        *healthy("gpu-0", "gpu-0-mig-1g5gb-19-0"),
        DeviceHealth("gpu-0-mig-1g5gb-19-1", Health.UNHEALTHY, "it is gone"),
    )
    told = device_health(state(problems=(lost(0, "GPU-0"),)), NONE, held)
    assert [each.message for each in told] == ["it fell off the bus"] * 2


def test_a_lost_gpu_that_was_seen_before_is_unhealthy_with_its_message() -> None:
    known = seen(state(gpu(0), gpu(1)))
    told = device_health(state(gpu(0), problems=(lost(1, "GPU-1"),)), known, NONE)
    assert told == (*healthy("gpu-0"), DeviceHealth("gpu-1", Health.UNHEALTHY, "it fell off the bus"))


def test_a_gpu_that_is_not_even_counted_any_more_is_unhealthy() -> None:
    told = device_health(state(gpu(0)), {"gpu-0": "GPU-0", "gpu-1": "GPU-1"}, NONE)
    assert told[1] == DeviceHealth("gpu-1", Health.UNHEALTHY, "GPU-1 is not among the GPUs that answer")


def test_a_held_gpu_that_this_process_never_saw_is_unhealthy() -> None:
    """A restart after the loss: NVML gives the number of what is lost, and nothing else."""
    told = device_health(state(gpu(0), problems=(lost(3, None),)), NONE, {"gpu-3": "GPU-3", "gpu-0": "GPU-0"})
    assert told == (
        *healthy("gpu-0"),
        DeviceHealth("gpu-3", Health.UNHEALTHY, "GPU-3 is not among the GPUs that answer; GPU 3: it fell off the bus"),
    )


def test_a_claim_whose_record_was_lost_is_judged_by_its_devices_name() -> None:
    told = device_health(state(gpu(0)), NONE, {"gpu-0": "", "gpu-1": "", "odd": ""})
    assert [(each.device, each.health) for each in told] == [
        ("gpu-0", Health.HEALTHY),
        ("gpu-1", Health.UNHEALTHY),
        ("odd", Health.UNHEALTHY),
    ]


def test_another_gpu_in_the_place_of_a_held_one_does_not_heal_it() -> None:
    told = device_health(state(gpu(0, "GPU-new")), NONE, {"gpu-0": "GPU-old"})
    assert [each.health for each in told] == [Health.UNHEALTHY]
    replaced = state(gpu(0, "GPU-new"))
    known = remember({"gpu-0": "GPU-old"}, replaced.machine, DEFAULT, "node-1")
    assert device_health(replaced, known, NONE) == healthy("gpu-0")


def test_nothing_is_known_while_the_hardware_cannot_be_read() -> None:
    def told(hardware: HardwareState, *, hanging: bool = False) -> tuple[DeviceHealth, ...]:
        return device_health(hardware, {"gpu-0": "GPU-0"}, {"gpu-7": "GPU-7"}, hanging=hanging)

    def unknown(message: str) -> tuple[DeviceHealth, ...]:
        return tuple(DeviceHealth(name, Health.UNKNOWN, message) for name in ("gpu-0", "gpu-7"))

    assert told(HardwareState()) == unknown(NOT_READ)
    assert told(HardwareState(True, None, "no driver")) == unknown("no driver")
    assert told(replace(state(gpu(0)), problem="NVML said 999")) == unknown("NVML said 999")
    assert told(state(gpu(0)), hanging=True) == unknown("the hardware does not answer: a reading hangs")


def test_what_is_remembered() -> None:
    known = seen(state(gpu(0), gpu(1)))
    assert remember(known, None, DEFAULT, "node-1") == known
    assert remember(known, Machine("580", 13000, (gpu(0),)), DEFAULT, "node-1") == known
    moved = remember(known, Machine("580", 13000, (gpu(0, "GPU-1"), gpu(2, "GPU-0"))), DEFAULT, "node-1")
    assert moved == {"gpu-0": "GPU-1", "gpu-2": "GPU-0"}
