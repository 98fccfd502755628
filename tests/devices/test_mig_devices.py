"""MIG devices: what a GPU offers under each policy, and what its devices cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations

import pytest

from api.mig_policy import MigMode
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.mig_devices import partial_sizes
from dra_driver.devices.model import AllocatableDevice, DeviceKind, DeviceSet, Taint
from dra_driver.devices.naming import MigName, parse_name
from dra_driver.devices.packing import placement_order
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.devices.selector import GpuSelector
from dra_driver.hardware.model import (
    Gpu,
    MigPlacement,
    RefusedPlacement,
)
from dra_driver.kube.interface import RESOURCE_SLICES
from dra_driver.quantity import Quantity
from dra_driver.simulation.validation import unknown_fields, validate_create
from dra_driver.slices.cutting import PoolOwner, desired_slices
from dra_driver.slices.diff import plan_writes
from dra_driver.slices.features import ApiFeatures
from tests.devices.builders import machine
from tests.devices.mig_gpus import A100, AMPERE, H100, instance, mig_gpu, profile
from tests.devices.recorded import mig_machines, recorded_profiles

OWNER = PoolOwner("gpu.nvidia.com", "node-0", "11111111-2222-3333-4444-555555555555")


def policy(mode: MigMode | None = None, *, partial: bool = False, adopt: bool = False) -> DevicePolicy:
    rule = MigRule(mode=mode, partial_compute_instances=partial, adopt_foreign=adopt)
    return DevicePolicy(mig=MigPolicy((rule,)))


def offered(*gpus: Gpu, by: DevicePolicy | None = None, node: str = "") -> DeviceSet:
    return allocatable_devices(machine(*gpus), by or DevicePolicy(), node)


def names(devices: DeviceSet) -> list[str]:
    return [device.name for device in devices.devices]


def named(devices: DeviceSet, name: str) -> AllocatableDevice:
    return next(device for device in devices.devices if device.name == name)


def numbers(values: Mapping[str, Quantity]) -> dict[str, int]:
    return {name: quantity.value() for name, quantity in values.items()}


# -- what is offered --------------------------------------------------------------------------------------------------


def test_a_dynamic_gpu_is_offered_whole_and_in_every_way_to_cut_it() -> None:
    found = offered(mig_gpu())
    placements = [
        f"gpu-0-mig-{each.name.replace('.', '').replace('+', '-')}-{each.id}-{place.start}"
        for each, place in placement_order(recorded_profiles(H100))
    ]
    assert names(found) == ["gpu-0", *placements]
    assert len(placements) == 25
    assert [each.name for each in found.counter_sets] == ["gpu-0-counter-set"]


def test_a_mig_device_has_nvidias_attributes_capacities_and_counters() -> None:
    found = offered(mig_gpu())
    device = named(found, "gpu-0-mig-3g40gb-9-4")
    whole = named(found, "gpu-0")
    assert device.kind is DeviceKind.MIG
    assert device.gpu_uuid == whole.gpu_uuid
    assert device.attributes == {
        **{name: value for name, value in whole.attributes.items() if name != "uuid"},
        "type": "mig",
        "parentUUID": whole.gpu_uuid,
        "profile": "3g.40gb",
    }
    assert {name: str(held.value) for name, held in device.capacity.items()} == {
        "multiprocessors": "60",
        "copyEngines": "3",
        "decoders": "3",
        "encoders": "0",
        "jpegEngines": "3",
        "ofaEngines": "0",
        "memory": "40448Mi",
    }
    (consumed,) = device.consumes
    assert consumed.counter_set == "gpu-0-counter-set"
    assert numbers(consumed.counters) == {
        "multiprocessors": 60,
        "copy-engines": 3,
        "decoders": 3,
        "encoders": 0,
        "jpeg-engines": 3,
        "ofa-engines": 0,
        "memory": 40448 * 2**20,
        **{f"memory-slice-{index}": 1 for index in range(4, 8)},
    }


def test_the_whole_gpu_uses_up_the_counters_and_keeps_its_memory() -> None:
    found = offered(mig_gpu())
    whole, (counters,) = named(found, "gpu-0"), found.counter_sets
    (consumed,) = whole.consumes
    assert (consumed.counter_set, consumed.counters) == (counters.name, counters.counters)
    assert str(counters.counters["memory"]) == "81152Mi"
    assert numbers(counters.counters)["copy-engines"] == 8
    assert str(whole.capacity["memory"].value) == "80Gi"
    assert str(whole.capacity["multiprocessors"].value) == "132"


@pytest.mark.parametrize("enabled", [True, False])
def test_neither_mig_mode_nor_the_instances_of_claims_change_what_is_offered(enabled: bool) -> None:
    claimed = mig_gpu(enabled=enabled, instances=(instance("3g.40gb", 0), instance("1g.10gb", 6)) if enabled else ())
    assert offered(claimed) == offered(mig_gpu())


@pytest.mark.parametrize(
    ("enabled", "mode", "expected"),
    [
        (False, MigMode.DYNAMIC, ["whole"]),
        (True, MigMode.DYNAMIC, ["placements", "counters"]),
        (False, MigMode.STATIC, ["whole"]),
        (True, MigMode.STATIC, ["existing"]),
        (False, MigMode.OFF, ["whole"]),
        (True, MigMode.OFF, []),
        (False, None, ["whole"]),
        (True, None, ["existing"]),
    ],
)
def test_ampere_whose_mode_waits_for_a_reset(enabled: bool, mode: MigMode | None, expected: list[str]) -> None:
    on_it = (instance("2g.10gb", 2, of=A100),) if enabled else ()
    found = offered(mig_gpu(profiles=A100, enabled=enabled, instances=on_it, **AMPERE), by=policy(mode))
    seen = ["whole"] if "gpu-0" in names(found) else []
    partitions = [device for device in found.devices if device.kind is DeviceKind.MIG]
    if partitions:
        seen.append("existing" if len(partitions) == 1 and "uuid" in partitions[0].attributes else "placements")
    assert seen + (["counters"] if found.counter_sets else []) == expected


@pytest.mark.parametrize(
    ("enabled", "mode", "whole", "partitions"),
    [
        (False, MigMode.STATIC, True, 0),
        (True, MigMode.STATIC, False, 1),
        (False, MigMode.OFF, True, 0),
        (True, MigMode.OFF, False, 0),
    ],
)
def test_hopper_that_is_not_dynamic(enabled: bool, mode: MigMode, whole: bool, partitions: int) -> None:
    found = offered(mig_gpu(enabled=enabled, instances=(instance("1g.20gb", 4),) if enabled else ()), by=policy(mode))
    assert ("gpu-0" in names(found), len(found.devices) - whole) == (whole, partitions)
    assert found.counter_sets == ()
    assert all(not device.consumes for device in found.devices)


def test_rules_tell_nodes_and_gpus_apart() -> None:
    rules = (
        MigRule(GpuSelector(nodes=("static-*",)), MigMode.STATIC),
        MigRule(GpuSelector(minors=(1,)), MigMode.OFF),
    )
    by = DevicePolicy(mig=MigPolicy(rules))
    gpus = (mig_gpu(0), mig_gpu(1))
    assert names(offered(*gpus, by=by, node="static-7")) == ["gpu-0", "gpu-1"]
    mixed = offered(*gpus, by=by, node="node-7")
    assert names(mixed)[0] == "gpu-0"
    assert names(mixed)[-1] == "gpu-1"
    assert [each.name for each in mixed.counter_sets] == ["gpu-0-counter-set"]
    assert len(mixed.devices) == 27


# -- static -----------------------------------------------------------------------------------------------------------


def test_static_mig_devices_have_a_uuid_and_memory_slices() -> None:
    on_it = (instance("3g.40gb", 0), instance("1g.10gb", 6), instance("1g.10gb+me", 4))
    found = offered(mig_gpu(enabled=True, instances=on_it), by=policy(MigMode.STATIC))
    assert names(found) == ["gpu-0-mig-1g10gb-me-20-4", "gpu-0-mig-1g10gb-19-6", "gpu-0-mig-3g40gb-9-0"]
    device = named(found, "gpu-0-mig-3g40gb-9-0")
    assert device.attributes["uuid"] == "MIG-3g.40gb-0-0"
    assert device.attributes["profile"] == "3g.40gb"
    slices = {name for name in device.capacity if name.startswith("memorySlice")}
    assert slices == {"memorySlice0", "memorySlice1", "memorySlice2", "memorySlice3"}
    assert named(found, "gpu-0-mig-1g10gb-19-6").capacity["memorySlice6"].value == Quantity.of(1)


def test_an_instance_without_a_compute_instance_is_no_device() -> None:
    bare = replace(instance("3g.40gb", 0), compute_instances=())
    assert offered(mig_gpu(enabled=True, instances=(bare,)), by=policy(MigMode.STATIC)) == DeviceSet()


def test_partial_compute_instances_that_exist_are_devices_of_their_own() -> None:
    shared = instance("3g.40gb", 4, (1, 0), (2, 1))
    found = offered(mig_gpu(enabled=True, instances=(shared,)), by=policy(MigMode.STATIC))
    assert names(found) == ["gpu-0-mig-1c3g40gb-9-4-c0", "gpu-0-mig-2c3g40gb-9-4-c1"]
    one, two = found.devices
    assert (one.attributes["profile"], two.attributes["profile"]) == ("1c.3g.40gb", "2c.3g.40gb")
    assert [numbers({"n": each.capacity["multiprocessors"].value})["n"] for each in (one, two)] == [16, 32]
    assert one.capacity["memory"] == two.capacity["memory"]


# -- partial compute instances by claims ------------------------------------------------------------------------------


def test_partial_compute_instances_are_asked_for_and_take_the_whole_gpu_instance() -> None:
    plain = offered(mig_gpu())
    found = offered(mig_gpu(), by=policy(partial=True))
    assert found.devices[: len(plain.devices)] == plain.devices
    part, all_of_it = named(found, "gpu-0-mig-1c3g40gb-9-4-c0"), named(found, "gpu-0-mig-3g40gb-9-4")
    assert part.attributes["profile"] == "1c.3g.40gb"
    assert part.consumes == all_of_it.consumes
    assert part.capacity["multiprocessors"].value == Quantity.of(16)
    assert {**part.capacity, "multiprocessors": None} == {**all_of_it.capacity, "multiprocessors": None}


@pytest.mark.parametrize(("whole", "sizes"), [(1, []), (2, [1]), (3, [1, 2]), (4, [1, 2]), (7, [1, 2, 3, 4])])
def test_sizes_of_partial_compute_instances(whole: int, sizes: list[int]) -> None:
    assert list(partial_sizes(replace(profile("1g.10gb"), slice_count=whole))) == sizes
    assert all(2 * size <= whole + 1 for size in sizes)


# -- taints -----------------------------------------------------------------------------------------------------------


def tainted(found: DeviceSet) -> dict[str, tuple[Taint, ...]]:
    return {device.name: device.taints for device in found.devices if device.taints}


def test_a_foreign_instance_taints_what_it_is_in_the_way_of() -> None:
    found = offered(mig_gpu(0, enabled=True, instances=(instance("2g.20gb", 4, foreign=True),)), mig_gpu(1))
    taint = Taint("gpu.nvidia.com/foreign-mig-instance", "2g20gb", "NoSchedule")
    assert tainted(found) == dict.fromkeys(
        [
            "gpu-0",
            *(name for name in names(found) if name.startswith("gpu-0-mig") and covers(name, found) & {4, 5}),
        ],
        (taint,),
    )
    assert "gpu-0-mig-3g40gb-9-0" not in tainted(found)
    assert "gpu-0-mig-3g40gb-9-4" in tainted(found)


def covers(name: str, found: DeviceSet) -> set[int]:
    (consumed,) = named(found, name).consumes
    return {int(each.removeprefix("memory-slice-")) for each in consumed.counters if each.startswith("memory-slice-")}


def test_a_foreign_instance_with_the_media_engines_is_in_the_way_of_others_that_want_them() -> None:
    found = tainted(offered(mig_gpu(enabled=True, instances=(instance("1g.10gb+me", 0, foreign=True),))))
    assert "gpu-0-mig-1g10gb-me-20-6" in found
    assert "gpu-0-mig-1g10gb-19-6" not in found


def test_the_taint_names_the_instance_that_is_in_the_way() -> None:
    both = (instance("1g.10gb", 0, foreign=True), instance("1g.20gb", 6, foreign=True))
    found = tainted(offered(mig_gpu(enabled=True, instances=both)))
    assert found["gpu-0"][0].value == "1g10gb"
    assert found["gpu-0-mig-1g20gb-15-6"][0].value == "1g20gb"
    assert found["gpu-0-mig-1g20gb-15-0"][0].value == "1g10gb"
    assert "gpu-0-mig-2g20gb-14-2" not in found


def test_adopted_instances_taint_nothing() -> None:
    foreign = mig_gpu(enabled=True, instances=(instance("2g.20gb", 4, foreign=True),))
    assert tainted(offered(foreign, by=policy(adopt=True))) == {}
    assert tainted(offered(foreign, by=policy(MigMode.STATIC))) == {}


def test_a_refused_placement_taints_the_devices_at_it() -> None:
    refused = (RefusedPlacement(profile("3g.40gb").id, MigPlacement(4, 4), "NVML: insufficient resources"),)
    found = offered(mig_gpu(refused=refused), by=policy(partial=True))
    taint = Taint("gpu.nvidia.com/mig-placement-refused", "", "NoSchedule")
    assert tainted(found) == dict.fromkeys(
        ["gpu-0-mig-3g40gb-9-4", "gpu-0-mig-1c3g40gb-9-4-c0", "gpu-0-mig-2c3g40gb-9-4-c0"], (taint,)
    )


def test_taints_are_in_the_drivers_domain() -> None:
    foreign = mig_gpu(enabled=True, instances=(instance("7g.80gb", 0, foreign=True),))
    found = tainted(offered(foreign, by=DevicePolicy(driver="gpu.example.com")))
    assert {taint.key for taints in found.values() for taint in taints} == {"gpu.example.com/foreign-mig-instance"}
    assert len(found) == 26


# -- every recorded product -------------------------------------------------------------------------------------------

products = pytest.mark.parametrize("product", mig_machines())


@products
def test_names_are_unique_and_counters_are_within_the_set(product: str) -> None:
    found = offered(mig_gpu(profiles=product), by=policy(MigMode.DYNAMIC, partial=True))
    assert len(set(names(found))) == len(found.devices)
    (counters,) = found.counter_sets
    for device in found.devices:
        (consumed,) = device.consumes
        assert consumed.counters.keys() <= counters.counters.keys()
        assert all(quantity <= counters.counters[name] for name, quantity in consumed.counters.items())


@products
def test_counters_admit_as_many_of_one_profile_as_the_hardware_does(product: str) -> None:
    found = offered(mig_gpu(profiles=product))
    (counters,) = found.counter_sets
    for each in recorded_profiles(product):
        alike = [device for device in found.devices if device.attributes.get("profile") == each.name]
        left, placed = dict(counters.counters), 0
        for device in alike:
            (consumed,) = device.consumes
            if all(left[name] >= quantity for name, quantity in consumed.counters.items()):
                left |= {name: left[name] - quantity for name, quantity in consumed.counters.items()}
                placed += 1
        assert placed == each.instance_count, each.name


@products
def test_placements_that_lie_apart_are_refused_for_nothing_but_engines(product: str) -> None:
    """Memory and multiprocessors of the set never stand in the way of what memory slices allow."""
    found = offered(mig_gpu(profiles=product))
    (counters,) = found.counter_sets
    devices = [device for device in found.devices if device.kind is DeviceKind.MIG]
    for group in packed(devices, found):
        for name in ("memory", "multiprocessors"):
            total = sum(device.consumes[0].counters[name].value() for device in group)
            assert total <= counters.counters[name].value(), [device.name for device in group]


def packed(devices: list[AllocatableDevice], found: DeviceSet) -> Iterator[tuple[AllocatableDevice, ...]]:
    """Groups of up to four devices whose memory slices lie apart."""
    taken = {device.name: covers(device.name, found) for device in devices}
    for size in (2, 3):
        for group in combinations(devices, size):
            slices = [taken[device.name] for device in group]
            if sum(map(len, slices)) == len(set().union(*slices)):
                yield group


@products
@pytest.mark.parametrize("combined", [True, False])
def test_eight_gpus_with_everything_pass_the_servers_rules_in_both_forms(product: str, combined: bool) -> None:
    gpus = [mig_gpu(number, profiles=product) for number in range(9)]
    by = replace(policy(MigMode.DYNAMIC, partial=True), additional_attributes=True)
    found = offered(*gpus, by=by)
    desired = desired_slices(found, OWNER, ApiFeatures(combined_counters=combined))
    assert sum(len(spec.devices) for spec in desired) == len(found.devices)
    for item in plan_writes(desired, [], owner=OWNER).creates:
        assert unknown_fields(RESOURCE_SLICES, item) == []
        if not combined:  # the rules are those of 1.35 and later
            assert validate_create(RESOURCE_SLICES, item) == []
        else:
            assert len(item["spec"]["devices"]) <= 64


def test_twelve_memory_slices_leave_no_room_for_themselves() -> None:
    """RTX PRO 6000: attributes and capacities of one device are at most 32."""
    product = "rtx-pro-6000"
    on_it = (instance("4g.96gb", 0, of=product),)
    found = offered(mig_gpu(profiles=product, enabled=True, instances=on_it), by=policy(MigMode.STATIC))
    (device,) = found.devices
    assert len(device.attributes) + len(device.capacity) <= 32
    assert "memory" in device.capacity
    half = (instance("2g.48gb", 6, of=product),)
    (device,) = offered(mig_gpu(profiles=product, enabled=True, instances=half), by=policy(MigMode.STATIC)).devices
    assert "memorySlice11" in device.capacity


@products
def test_every_mig_device_is_named_after_its_place(product: str) -> None:
    for device in offered(mig_gpu(3, profiles=product)).devices:
        if device.kind is DeviceKind.MIG:
            parsed = parse_name(device.name)
            assert isinstance(parsed, MigName)
            slices = covers(device.name, DeviceSet((device,)))
            assert (parsed.minor, parsed.start) == (3, min(slices))
