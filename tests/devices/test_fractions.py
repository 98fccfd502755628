"""Devices that are offered in fractions, and NVIDIA's ConsumableShares: what is published of them."""

from __future__ import annotations

import pytest

from api.claim_config import SharingStrategy
from api.driver_config import decode
from api.fractions import ENFORCEMENT, Enforcement, SharingBackend, suffices
from api.mig_policy import MigMode
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.configured import device_policy
from dra_driver.devices.fences import fences_of
from dra_driver.devices.model import AllocatableDevice
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.devices.shares import Refused, form_of, sharing_of
from dra_driver.devices.sharing import Counted, Fractions, Replicas, Sharing, SharingPolicy, SharingRule
from dra_driver.hardware.model import Gpu, Machine, Reserve
from tests.devices.builders import gpu, machine
from tests.devices.mig_gpus import instance, mig_gpu

MIB, GIB = 2**20, 2**30
FINE = Fractions(memory_step=256 * MIB, compute_step=1)
RESERVE = Reserve("gpu-0", 600 * MIB)
PLAIN = gpu(0, mig=None, reserves=(RESERVE,))


def offered(
    one: Gpu,
    sharing: Sharing = FINE,
    *fences: SharingBackend,
    profile: str | None = None,
    mode: MigMode | None = None,
    sharing_by: frozenset[SharingStrategy] = frozenset(SharingStrategy),
) -> dict[str, AllocatableDevice]:
    rule = SharingRule(sharing, mig_profile=profile)
    policy = DevicePolicy(mig=MigPolicy((MigRule(mode=mode),)), sharing=SharingPolicy((rule,)), sharing_by=sharing_by)
    plain = machine(one)
    node = Machine(plain.driver_version, plain.cuda_driver_version, plain.gpus, fences)
    return {device.name: device for device in allocatable_devices(node, policy, "node-1").devices}


def policy_of(device: AllocatableDevice, name: str) -> tuple[str, ...]:
    held = device.capacity[name]
    assert held.policy is not None
    return tuple(
        map(str, (held.value, held.policy.default, held.policy.minimum, held.policy.maximum, held.policy.step))
    )


def test_all_but_the_reserve_is_offered_in_whole_steps_and_who_asks_for_nothing_gets_all_memory() -> None:
    device = offered(PLAIN, FINE, SharingBackend.MPS)["gpu-0"]
    assert device.allow_multiple_allocations
    assert policy_of(device, "memory") == ("81152Mi", "81152Mi", "256Mi", "81152Mi", "256Mi")  # 80Gi - 600Mi, in steps
    assert policy_of(device, "compute") == ("100", "0", "0", "100", "1")
    assert (device.attributes["type"], "sharingStrategy" in device.attributes) == ("gpu", False)


def test_compute_never_adds_up_to_more_than_all_of_it() -> None:
    device = offered(PLAIN, Fractions(GIB, compute_step=30))["gpu-0"]
    assert policy_of(device, "compute") == ("90", "0", "0", "90", "30")


@pytest.mark.parametrize(
    ("fences", "published"),
    [
        ((), ("None", "None")),
        ((SharingBackend.MPS,), ("Mps", "Cooperative")),
        ((SharingBackend.MPS, SharingBackend.MPS_NAMESPACE), ("MpsNamespace", "Cooperative")),
        (tuple(SharingBackend), ("Cgroup", "Enforced")),
    ],
)
def test_the_strongest_fence_is_published(fences: tuple[SharingBackend, ...], published: tuple[str, str]) -> None:
    attributes = offered(PLAIN, FINE, *fences)["gpu-0"].attributes
    assert (attributes["sharingBackend"], attributes["sharingEnforcement"]) == published


def test_mps_that_is_switched_off_fences_nothing() -> None:
    off = frozenset({SharingStrategy.TIME_SLICING})
    attributes = offered(PLAIN, FINE, SharingBackend.MPS, SharingBackend.MPS_NAMESPACE, sharing_by=off)[
        "gpu-0"
    ].attributes
    assert attributes["sharingBackend"] == "None"
    assert fences_of(tuple(SharingBackend), PLAIN, DevicePolicy(sharing_by=off)) == (SharingBackend.CGROUP,)


def test_mps_is_beside_the_drivers_limit_which_is_of_memory_alone() -> None:
    assert fences_of(tuple(SharingBackend), PLAIN, DevicePolicy()) == (
        SharingBackend.CGROUP,
        SharingBackend.MPS_NAMESPACE,
    )
    assert fences_of((SharingBackend.CGROUP,), PLAIN, DevicePolicy()) == (SharingBackend.CGROUP,)
    assert fences_of(tuple(SharingBackend), PLAIN, DevicePolicy(), mig=True) == (SharingBackend.MPS,)


def test_mps_limits_nobody_before_volta() -> None:
    pascal = gpu(0, mig=None, cuda_compute_capability="6.1")
    assert fences_of((SharingBackend.MPS,), pascal, DevicePolicy()) == (SharingBackend.NONE,)


def test_enforcement_is_a_ladder() -> None:
    levels = [ENFORCEMENT[backend].value for backend in SharingBackend]
    assert levels == ["Enforced", "Cooperative", "Cooperative", "None"]
    assert suffices(SharingBackend.MPS, Enforcement.COOPERATIVE)
    assert not suffices(SharingBackend.MPS, Enforcement.ENFORCED)
    assert suffices(SharingBackend.NONE, Enforcement.NONE)
    assert not suffices(SharingBackend.NONE, Enforcement.COOPERATIVE)


def test_a_gpu_whose_reserve_was_not_measured_stays_whole() -> None:
    device = offered(gpu(0, mig=None))["gpu-0"]
    assert not device.allow_multiple_allocations
    assert device.capacity["memory"].policy is None


def test_a_gpu_that_is_smaller_than_a_step_stays_whole() -> None:
    assert not offered(PLAIN, Fractions(80 * GIB, 1))["gpu-0"].allow_multiple_allocations


def test_a_gpu_without_memory_of_its_own_is_refused() -> None:
    policy = DevicePolicy(sharing=SharingPolicy((SharingRule(FINE),)))
    refused = sharing_of(policy, "node-1", gpu(0, mig=None, memory_bytes=None))
    assert isinstance(refused, Refused)
    assert "shares the host's" in refused.because


def test_mig_devices_that_exist_are_divided_and_never_by_cgroup() -> None:
    """NVML takes no MIG device for its memory limits."""
    name = "gpu-0-mig-1g10gb-19-0"
    one = mig_gpu(0, enabled=True, instances=(instance("1g.10gb", 0),), reserves=(Reserve(name, 30 * MIB),))
    found = offered(one, FINE, *SharingBackend, profile="1g.10gb", mode=MigMode.STATIC)
    device = found[name]
    assert device.allow_multiple_allocations
    assert device.attributes["sharingBackend"] == "Mps"
    assert policy_of(device, "memory") == ("9728Mi", "9728Mi", "256Mi", "9728Mi", "256Mi")
    assert policy_of(device, "multiprocessors")[1] == "0"


def test_a_whole_gpu_that_can_be_cut_draws_from_its_counters_as_before() -> None:
    one = mig_gpu(0, reserves=(RESERVE,))
    device = offered(one, FINE, mode=MigMode.DYNAMIC)["gpu-0"]
    assert device.allow_multiple_allocations
    assert device.consumes
    assert all(held.policy is not None for held in device.capacity.values() if held.value)


def test_a_device_in_fractions_is_another_one_than_in_replicas_or_whole() -> None:
    forms = [form_of(offered(PLAIN, sharing)["gpu-0"]) for sharing in (FINE, Counted(memory=True))]
    forms += [form_of(offered(PLAIN, Replicas(SharingStrategy.TIME_SLICING, 2))["gpu-0"])]
    forms += [form_of(offered(gpu(0, mig=None))["gpu-0"])]
    assert len(set(forms)) == 4


# -- NVIDIA's ConsumableShares ----------------------------------------------------------------------------------------


def configured(option: object, gates: dict[str, bool]) -> AllocatableDevice:
    spec = decode({"spec": {"featureGates": gates, "sharing": {"consumableShares": option}}}).spec
    return allocatable_devices(machine(gpu(0, mig=None)), device_policy(spec), "node-1").devices[0]


ON = {"ConsumableShares": True}


def test_consumable_shares_need_the_feature_gate_as_there() -> None:
    assert not configured("memory", {}).allow_multiple_allocations


def test_consumable_shares_unlimited() -> None:
    device = configured("unlimited", ON)
    assert policy_of(device, "memory") == ("80Gi", "0", "0", "80Gi", "1Mi")
    assert list(device.capacity) == ["memory"]


def test_consumable_shares_memory() -> None:
    """Only counted, of all that there is, as theirs; so no attribute says that anything is fenced."""
    device = configured("memory", ON)
    assert policy_of(device, "memory") == ("80Gi", "80Gi", "1Mi", "80Gi", "1Mi")
    assert list(device.capacity) == ["memory"]
    assert "sharingBackend" not in device.attributes


def test_consumable_shares_by_number() -> None:
    device = configured(4, ON)
    assert policy_of(device, "shares") == ("4", "1", "1", "4", "1")
    assert policy_of(device, "memory") == ("80Gi", "0", "0", "80Gi", "1Mi")


def test_a_rule_goes_before_consumable_shares() -> None:
    sharing = {"consumableShares": "unlimited", "rules": [{"selector": {"minors": [1]}, "replicas": 3}]}
    spec = decode({"spec": {"featureGates": ON, "sharing": sharing}}).spec
    first, second = allocatable_devices(machine(gpu(0, mig=None), gpu(1, mig=None)), device_policy(spec), "n").devices
    assert list(first.capacity) == ["memory"]
    assert list(second.capacity) == ["memory", "shares"]
