"""Which devices are offered as several shares, and what is published of them."""

from __future__ import annotations

from typing import Any

import pytest

from api.claim_config import SharingStrategy
from api.mig_policy import MigMode
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.model import AllocatableDevice, DeviceKind, RequestPolicy
from dra_driver.devices.naming import parse_name
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.devices.selector import GpuSelector
from dra_driver.devices.shares import Refused, form_of, replicas_of, sharing_of
from dra_driver.devices.sharing import Replicas, SharingPolicy, SharingRule
from dra_driver.hardware.model import Gpu
from dra_driver.quantity import Quantity
from tests.devices.builders import gpu, machine
from tests.devices.mig_gpus import instance, mig_gpu

TIME_SLICING, MPS = SharingStrategy.TIME_SLICING, SharingStrategy.MPS
PLAIN = gpu(0, mig=None)


def devices(gpus: tuple[Gpu, ...], *rules: SharingRule, mode: MigMode | None = None) -> dict[str, AllocatableDevice]:
    policy = DevicePolicy(mig=MigPolicy((MigRule(mode=mode),)), sharing=SharingPolicy(rules))
    return {device.name: device for device in allocatable_devices(machine(*gpus), policy, "node-1").devices}


def rule(count: int, strategy: SharingStrategy = TIME_SLICING, **more: Any) -> SharingRule:
    keys = ("renamed", "one_per_request")
    return SharingRule(Replicas(strategy, count, **{key: more.pop(key) for key in keys if key in more}), **more)


def policies(device: AllocatableDevice) -> dict[str, tuple[str, ...] | None]:
    def texts(policy: RequestPolicy | None) -> tuple[str, ...] | None:
        if policy is None:
            return None
        return tuple(map(str, (policy.default, policy.minimum, policy.maximum, policy.step)))

    return {name: texts(held.policy) for name, held in device.capacity.items()}


def test_a_shared_gpu_has_shares_and_nothing_else_is_taken_unasked() -> None:
    device = devices((PLAIN,), rule(4))["gpu-0"]
    assert device.allow_multiple_allocations
    assert str(device.capacity["shares"].value) == "4"
    assert policies(device) == {"shares": ("1", "1", "4", "1"), "memory": ("0", "0", "80Gi", "1Mi")}
    assert (device.attributes["type"], device.attributes["sharingStrategy"]) == ("gpu", "TimeSlicing")


def test_one_per_request_limits_what_a_request_may_take() -> None:
    assert policies(devices((PLAIN,), rule(4, one_per_request=True))["gpu-0"])["shares"] == ("1", "1", "1", "1")


def test_renamed_shares_are_of_another_type_so_that_no_class_for_whole_gpus_selects_them() -> None:
    device = devices((PLAIN,), rule(4, renamed=True))["gpu-0"]
    assert (device.attributes["type"], device.kind) == ("gpu.shared", DeviceKind.GPU)


def test_memory_that_is_no_whole_number_of_mib_is_rounded_down_as_nvidias_driver_does() -> None:
    device = devices((gpu(0, mig=None, memory_bytes=80 * 2**30 + 5),), rule(2))["gpu-0"]
    assert str(device.capacity["memory"].value) == "80Gi"
    assert policies(device)["memory"] == ("0", "0", "80Gi", "1Mi")


def test_a_gpu_without_memory_of_its_own_is_shared_by_shares_alone() -> None:
    assert policies(devices((gpu(0, mig=None, memory_bytes=None),), rule(2))["gpu-0"]) == {
        "shares": ("1", "1", "2", "1")
    }


def test_the_first_rule_that_selects_a_gpu_decides_and_the_others_stay_whole() -> None:
    found = devices(
        (PLAIN, gpu(1, mig=None), gpu(2, mig=None)),
        rule(2, selector=GpuSelector(minors=(1,))),
        rule(3, selector=GpuSelector(nodes=("node-2",))),
        rule(4, selector=GpuSelector(minors=(1, 2))),
    )
    assert not found["gpu-0"].allow_multiple_allocations
    assert [str(found[name].capacity["shares"].value) for name in ("gpu-1", "gpu-2")] == ["2", "4"]


def test_a_dynamic_gpu_is_shared_as_a_whole_and_draws_all_counters_once() -> None:
    found = devices((mig_gpu(),), rule(4), rule(2, mig_profile="1g.10gb"), mode=MigMode.DYNAMIC)
    whole = found["gpu-0"]
    assert whole.allow_multiple_allocations
    assert whole.consumes
    assert policies(whole)["multiprocessors"] == ("0", "0", "132", "1")
    placements = [device for device in found.values() if device.kind is DeviceKind.MIG]
    assert placements
    assert not any(device.allow_multiple_allocations for device in placements)


def test_mig_devices_that_exist_are_shared_by_their_profile() -> None:
    divided = mig_gpu(enabled=True, instances=(instance("1g.10gb", 0), instance("2g.20gb", 2)))
    found = devices((divided,), rule(4), rule(3, mig_profile="1g.10gb", renamed=True), mode=MigMode.STATIC)
    shared = [device for device in found.values() if device.allow_multiple_allocations]
    assert [device.attributes["profile"] for device in shared] == ["1g.10gb"]
    assert (shared[0].attributes["type"], shared[0].kind) == ("mig.shared", DeviceKind.MIG)
    assert policies(shared[0])["memorySlice0"] == ("0", "0", "1", "1")
    assert policies(shared[0])["ofaEngines"] is None  # none of it, and a step would be more than there is


def test_more_replicas_than_an_mps_server_takes_clients_are_refused_for_that_gpu() -> None:
    pascal = gpu(1, mig=None, architecture="Pascal", cuda_compute_capability="6.0")
    found = devices((PLAIN, pascal), rule(17, MPS))
    assert found["gpu-0"].allow_multiple_allocations
    assert not found["gpu-1"].allow_multiple_allocations
    refused = sharing_of(DevicePolicy(sharing=SharingPolicy((rule(17, MPS),))), "n", pascal)
    assert isinstance(refused, Refused)
    assert "an MPS server on Pascal takes 16 clients, not 17" in refused.because
    assert not devices((PLAIN,), rule(49, MPS))["gpu-0"].allow_multiple_allocations
    assert devices((pascal,), rule(17))["gpu-1"].allow_multiple_allocations


def test_without_its_gate_nothing_is_shared_by_mps() -> None:
    policy = DevicePolicy(sharing=SharingPolicy((rule(4, MPS),)), sharing_by=frozenset({TIME_SLICING}))
    refused = sharing_of(policy, "n", PLAIN)
    assert isinstance(refused, Refused)
    assert "MPSSupport" in refused.because


@pytest.mark.parametrize("count", [2, 3, 7, 48])
def test_replicas_fit_beside_each_other_and_leave_no_whole_memory_slice(count: int) -> None:
    whole = devices((mig_gpu(),), rule(count), mode=MigMode.DYNAMIC)["gpu-0"]
    replicas = replicas_of(whole)
    assert [device.name for device in replicas] == [f"gpu-0-replica-{index}" for index in range(count)]
    assert [str(parse_name(device.name)) for device in replicas] == [device.name for device in replicas]
    (all_of_it,) = whole.consumes
    for counter, quantity in all_of_it.counters.items():
        taken = [device.consumes[0].counters[counter] for device in replicas]
        assert sum(taken, Quantity.of(0)) <= quantity
        if counter.startswith("memory-slice"):
            assert all(Quantity.of(0) < each < quantity for each in taken)
    for device in replicas:
        assert not device.allow_multiple_allocations
        assert "shares" not in device.capacity
        assert all(held.policy is None for held in device.capacity.values())


def test_the_form_tells_what_holders_rely_on() -> None:
    def form(*rules: SharingRule) -> object:
        return form_of(devices((PLAIN,), *rules)["gpu-0"])

    forms = [form(), form(rule(2)), form(rule(4)), form(rule(4, MPS)), form(rule(4, renamed=True))]
    assert len(set(forms)) == len(forms)
    assert form(rule(4)) == form(rule(4))
    replica = replicas_of(devices((PLAIN,), rule(4))["gpu-0"])[0]
    assert form_of(replica) != form_of(replicas_of(devices((PLAIN,), rule(2))["gpu-0"])[0])
