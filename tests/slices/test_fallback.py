"""What is still offered when the API server drops fields: never two devices that overlap."""

from __future__ import annotations

from dataclasses import replace

from api.claim_config import SharingStrategy
from api.mig_policy import MigMode
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.model import AllocatableDevice, CounterConsumption, DeviceSet
from dra_driver.devices.naming import MigName, parse_name
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.devices.shares import shared
from dra_driver.devices.sharing import Replicas
from dra_driver.slices.fallback import reduce_to
from dra_driver.slices.features import ApiFeatures
from tests.devices.builders import machine
from tests.devices.mig_gpus import A100, AMPERE, mig_gpu
from tests.slices.builders import (
    FEATURES,
    counter_set,
    partition,
    partitionable,
    partitioned_set,
    shareable,
    taint,
    whole,
)


def test_nothing_changes_when_the_server_holds_everything() -> None:
    device_set = partitioned_set(2, 3)
    assert reduce_to(device_set, FEATURES).device_set == device_set
    assert reduce_to(device_set, FEATURES).withheld == ()


def test_without_counters_partitions_are_withheld_and_whole_gpus_stay() -> None:
    reduction = reduce_to(partitioned_set(2, 2), ApiFeatures(partitionable=False))
    assert [(device.name, device.consumes) for device in reduction.device_set.devices] == [("gpu-0", ()), ("gpu-1", ())]
    assert reduction.device_set.counter_sets == ()
    assert reduction.withheld == (
        "gpu-0-mig-1g10gb-19-0",
        "gpu-0-mig-1g10gb-19-1",
        "gpu-1-mig-1g10gb-19-0",
        "gpu-1-mig-1g10gb-19-1",
    )


def test_without_counters_and_without_a_whole_gpu_the_first_partitions_that_fit_stay() -> None:
    """Ampere with MIG mode on: its partitions overlap each other, and no whole GPU stands for them."""
    gpus = [mig_gpu(number, A100, enabled=True, **AMPERE) for number in (0, 1)]
    offered = allocatable_devices(machine(*gpus), DevicePolicy(mig=MigPolicy((MigRule(mode=MigMode.DYNAMIC),))))
    reduction = reduce_to(offered, ApiFeatures(partitionable=False))
    places = [
        (parsed.minor, parsed.profile, parsed.start)
        for device in reduction.device_set.devices
        if isinstance(parsed := parse_name(device.name), MigName)
    ]
    assert sorted(places) == [(minor, "1g5gb", start) for minor in (0, 1) for start in range(7)]
    assert [device for device in offered.devices if device.name not in reduction.withheld] == [
        device for device in offered.devices if "-1g5gb-19-" in device.name
    ]
    assert not any(device.consumes for device in reduction.device_set.devices)


def test_without_counters_a_guarded_partition_leaves_its_place_to_others() -> None:
    whole_gpu, first, second = partitionable(0, 2)
    rival = replace(first, name="gpu-0-mig-1g10gb-me-20-0")
    guarded = replace(first, taints=(taint(),))
    device_set = DeviceSet((guarded, rival, second), (counter_set(0),))
    reduction = reduce_to(device_set, ApiFeatures(partitionable=False))
    assert [device.name for device in reduction.device_set.devices] == [rival.name, second.name]
    assert whole_gpu.name not in reduction.withheld


def test_without_counters_existing_partitions_that_need_none_stay() -> None:
    static = replace(partition(0, 0), consumes=())
    assert reduce_to(DeviceSet((static,)), ApiFeatures(partitionable=False)).device_set.devices == (static,)


def test_without_taints_guarded_devices_are_withheld() -> None:
    information = replace(whole(1), taints=(taint(effect="None"),))
    devices = (whole(0), information, whole(2, taint()), whole(3, taint(effect="NoExecute")))
    reduction = reduce_to(DeviceSet(devices), ApiFeatures(taints=False))
    assert reduction.device_set.devices == (whole(0), whole(1))
    assert reduction.withheld == ("gpu-2", "gpu-3")


def test_without_consumable_capacity_what_is_offered_in_parts_is_withheld() -> None:
    """Whoever asks for a part would get all of it: the server drops what he asks for, too."""
    reduction = reduce_to(DeviceSet((shareable(0), whole(1))), ApiFeatures(consumable=False))
    assert reduction.device_set.devices == (whole(1),)
    assert reduction.withheld == ("gpu-0",)


def test_dropped_fields_switch_features_off() -> None:
    paths = ["spec.devices[0].capacity[memory].requestPolicy", "spec.devices[0].allowMultipleAllocations"]
    assert FEATURES.without(paths) == ApiFeatures(consumable=False)
    assert FEATURES.without(["spec.sharedCounters"]) == ApiFeatures(partitionable=False)
    assert FEATURES.without(["spec.devices[3].consumesCounters[0].counters[taints]"]) == ApiFeatures(
        partitionable=False
    )
    assert FEATURES.without(["spec.devices[12].taints"]) == ApiFeatures(taints=False)
    assert FEATURES.without(["spec.devices[0].attributes[taints].string"]) == FEATURES
    assert FEATURES.without([]) == FEATURES


def with_shares(number: int, count: int) -> AllocatableDevice:
    return shared(whole(number), Replicas(SharingStrategy.TIME_SLICING, count))


def test_without_consumable_capacity_a_shared_device_becomes_replicas() -> None:
    reduction = reduce_to(DeviceSet((with_shares(0, 2), whole(1))), ApiFeatures(consumable=False))
    names = [device.name for device in reduction.device_set.devices]
    assert names == ["gpu-0-replica-0", "gpu-0-replica-1", "gpu-1"]
    assert reduction.withheld == ()
    first = reduction.device_set.devices[0]
    assert (first.allow_multiple_allocations, first.capacity) == (False, whole(0).capacity)
    again = reduce_to(reduction.device_set, ApiFeatures(consumable=False))
    assert again.device_set == reduction.device_set


def test_replicas_exclude_placements_by_counters_or_by_their_absence() -> None:
    both = DeviceSet((shared(full(), Replicas(SharingStrategy.TIME_SLICING, 2)), partition(0, 0)), (counter_set(0),))
    drawing = reduce_to(both, ApiFeatures(consumable=False)).device_set
    assert [device.name for device in drawing.devices][2:] == [partition(0, 0).name]
    (taken,) = drawing.devices[0].consumes
    assert str(taken.counters["memory-slice-0"]) == "500m"
    apart = reduce_to(both, ApiFeatures(consumable=False, partitionable=False))
    assert [device.name for device in apart.device_set.devices] == ["gpu-0-replica-0", "gpu-0-replica-1"]
    assert not any(device.consumes for device in apart.device_set.devices)
    assert apart.withheld == (partition(0, 0).name,)


def full() -> AllocatableDevice:
    return replace(whole(0), consumes=(CounterConsumption("gpu-0-counter-set", counter_set(0).counters),))
