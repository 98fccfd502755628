"""Devices with shares: against those of NVIDIA's driver with ConsumableShares, and against the server's rules."""

from __future__ import annotations

import pytest

from api.claim_config import SharingStrategy
from api.mig_policy import MigMode
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.devices.sharing import Replicas, SharingPolicy, SharingRule
from dra_driver.hardware.model import Machine
from dra_driver.kube.interface import RESOURCE_SLICES
from dra_driver.simulation.validation import unknown_fields, validate_create
from dra_driver.slices.cutting import desired_slices
from dra_driver.slices.diff import plan_writes
from dra_driver.slices.encode import Obj
from dra_driver.slices.features import ApiFeatures
from tests.conformance.machines import RECORDINGS
from tests.conformance.test_recorded_machines import OWNER
from tests.conformance.test_recorded_machines import machine as machine  # every machine that is shipped
from tests.conformance.test_whole_gpus import flat, listed, observed_differences, ours, owner_of, recorded

TIME_SLICING = SharingStrategy.TIME_SLICING


def policy(*rules: SharingRule, mode: MigMode | None = None) -> DevicePolicy:
    return DevicePolicy(mig=MigPolicy((MigRule(mode=mode),)), sharing=SharingPolicy(rules))


def test_a_gpu_with_four_shares_is_nvidias_but_for_the_strategy() -> None:
    (theirs,) = recorded("slices-h100-shares-4.json")
    machine = RECORDINGS["slices-h100-nogates.json"]
    (own,) = ours(machine, owner_of(theirs), policy(SharingRule(Replicas(TIME_SLICING, 4))))
    strategy = ("spec.devices[*].attributes[sharingStrategy]", "absent", "string")
    found = {(field, "", "") if "order" in field else (field, *_) for field, *_ in observed_differences(theirs, own)}
    expected = {(field, "", "") if "order" in field else (field, *_) for field, *_ in listed("always")}
    assert found == expected | {strategy}
    assert flat(own)["spec.devices[gpu-0].attributes[sharingStrategy].string"] == "TimeSlicing"


@pytest.mark.parametrize("one_per_request", [False, True])
@pytest.mark.parametrize("renamed", [False, True])
def test_shared_devices_of_every_machine_pass_the_servers_rules(
    machine: Machine, one_per_request: bool, renamed: bool
) -> None:
    for strategy, count in ((TIME_SLICING, 1024), (SharingStrategy.MPS, 48), (TIME_SLICING, 2)):
        rule = SharingRule(Replicas(strategy, count, renamed, one_per_request))
        for mode in MigMode:
            found = pass_the_rules(machine, policy(rule, mode=mode), ApiFeatures())
            assert "allowMultipleAllocations" in str(found)


@pytest.mark.parametrize("partitionable", [False, True])
def test_replica_devices_of_every_machine_pass_the_servers_rules(machine: Machine, partitionable: bool) -> None:
    features = ApiFeatures(consumable=False, partitionable=partitionable)
    found = pass_the_rules(machine, policy(SharingRule(Replicas(TIME_SLICING, 3))), features)
    assert "replica-2" in str(found)
    assert "allowMultipleAllocations" not in str(found)
    assert "requestPolicy" not in str(found)


def pass_the_rules(machine: Machine, policy: DevicePolicy, features: ApiFeatures) -> list[Obj]:
    desired = desired_slices(allocatable_devices(machine, policy), OWNER, features)
    creates = list(plan_writes(desired, [], owner=OWNER).creates)
    for item in creates:
        assert validate_create(RESOURCE_SLICES, item) == []
        assert unknown_fields(RESOURCE_SLICES, item) == []
    return creates
