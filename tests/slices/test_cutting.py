"""Cutting device sets into slices: nothing lost, order kept, every limit kept, stable."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given

from dra_driver.devices import text
from dra_driver.devices.model import MOST_ENTRIES, CounterSet, DeviceKind, DeviceSet
from dra_driver.kube.interface import RESOURCE_SLICES
from dra_driver.quantity import Quantity
from dra_driver.simulation.validation import limits as server_limits
from dra_driver.simulation.validation import unknown_fields, validate_create
from dra_driver.slices import limits
from dra_driver.slices.cutting import Cut, PoolDoesNotFit, PoolOwner, SliceSpec, desired_slices, generate_name
from dra_driver.slices.encode import encode_slice
from dra_driver.slices.fallback import reduce_to
from dra_driver.slices.features import ApiFeatures
from tests.slices.builders import (
    FEATURES,
    OLD_FEATURES,
    OWNER,
    api_features,
    counter_set,
    device_sets,
    partitionable,
    partitioned_set,
    taint,
    whole,
)


def test_an_empty_pool_is_one_empty_slice() -> None:
    assert desired_slices(DeviceSet(), OWNER, FEATURES) == (SliceSpec(0),)
    encoded = encode_slice(SliceSpec(0), OWNER, generation=1, count=1)
    assert encoded["spec"]["devices"] == []
    assert validate_create(RESOURCE_SLICES, encoded) == []


def test_whole_gpus_of_a_node_share_one_slice() -> None:
    devices = tuple(whole(number) for number in range(16))
    assert desired_slices(DeviceSet(devices), OWNER, FEATURES) == (SliceSpec(0, devices),)


def test_a_taint_does_not_move_devices_between_slices() -> None:
    plain = [whole(number) for number in range(150)]
    before = desired_slices(DeviceSet(tuple(plain)), OWNER, FEATURES)
    tainted = desired_slices(DeviceSet((*plain[:-1], replace(plain[-1], taints=(taint(),)))), OWNER, FEATURES)
    assert [len(spec.devices) for spec in before] == [64, 64, 22] == [len(spec.devices) for spec in tainted]
    assert before[:2] == tainted[:2]


def test_a_server_without_taints_gets_full_slices() -> None:
    devices = tuple(whole(number) for number in range(130))
    specs = desired_slices(DeviceSet(devices), OWNER, ApiFeatures(taints=False))
    assert [len(spec.devices) for spec in specs] == [128, 2]


def test_counters_are_apart_from_devices_since_1_35() -> None:
    specs = desired_slices(partitioned_set(9, 25), OWNER, FEATURES)
    assert [(len(spec.devices), len(spec.counter_sets)) for spec in specs] == [(0, 8), (0, 1), *[(26, 0)] * 9]
    assert [spec.index for spec in specs] == list(range(11))
    encoded = encode_slice(specs[0], OWNER, generation=1, count=11)
    assert "devices" not in encoded["spec"]


def test_cut_by_profile_the_devices_of_one_profile_share_a_slice() -> None:
    """Whole GPUs come first; a profile's devices are apart only when one slice cannot hold them."""
    specs = desired_slices(of_profiles(8, {"1g": 7, "2g": 3, "3g": 2, "7g": 1}), OWNER, FEATURES, Cut.BY_PROFILE)
    assert [len(spec.devices) for spec in specs] == [0, 8 + 56, 24 + 16 + 8]
    profiles = [device.attributes.get("profile", "") for device in specs[1].devices + specs[2].devices]
    assert profiles == [*[""] * 8, *["1g"] * 56, *["2g"] * 24, *["3g"] * 16, *["7g"] * 8]
    many = desired_slices(of_profiles(16, {"1g": 7, "2g": 3}), OWNER, FEATURES, Cut.BY_PROFILE)
    assert [len(spec.devices) for spec in many] == [0, 0, 16, 64, 48, 48]


def test_cut_by_profile_is_for_counters_in_slices_of_their_own() -> None:
    devices = of_profiles(2, {"1g": 7, "2g": 3})
    assert desired_slices(devices, OWNER, OLD_FEATURES, Cut.BY_PROFILE) == desired_slices(devices, OWNER, OLD_FEATURES)


def of_profiles(gpus: int, counts: dict[str, int]) -> DeviceSet:
    devices = [
        replace(
            device, attributes={**device.attributes, "profile": profile}, name=device.name.replace("1g10gb", profile)
        )
        if device.kind is DeviceKind.MIG
        else device
        for gpu in range(gpus)
        for profile, count in counts.items()
        for device in partitionable(gpu, count)[0 if profile == next(iter(counts)) else 1 :]
    ]
    return DeviceSet(tuple(devices), tuple(counter_set(gpu) for gpu in range(gpus)))


def test_counters_are_beside_devices_at_1_34() -> None:
    specs = desired_slices(partitioned_set(3, 25), OWNER, OLD_FEATURES)
    assert [(len(spec.devices), [item.name for item in spec.counter_sets]) for spec in specs] == [
        (26, [f"gpu-{number}-counter-set"]) for number in range(3)
    ]


def test_at_1_34_a_gpu_without_counters_has_a_slice_without() -> None:
    devices = (whole(7), *partitionable(0, 2))
    specs = desired_slices(DeviceSet(devices, partitioned_set(1, 2).counter_sets), OWNER, OLD_FEATURES)
    assert [(len(spec.devices), len(spec.counter_sets)) for spec in specs] == [(1, 0), (3, 1)]


def test_what_does_not_fit_at_1_34_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(PoolDoesNotFit, match=r"GPU-0 has 65 devices and a slice .* holds 64 \(upgrade"):
        desired_slices(partitioned_set(1, 64), OWNER, OLD_FEATURES)
    many = CounterSet("gpu-0-counter-set", {f"c-{index}": Quantity.of(1) for index in range(33)})
    with pytest.raises(PoolDoesNotFit, match="33 counters"):
        desired_slices(DeviceSet(tuple(partitionable(0, 1)), (many,)), OWNER, OLD_FEATURES)
    apart = (*partitionable(0, 1), whole(5), *partitionable(0, 1)[1:])
    with pytest.raises(PoolDoesNotFit, match="gpu-0-counter-set are not adjacent"):
        desired_slices(DeviceSet(apart, partitioned_set(1, 1).counter_sets), OWNER, OLD_FEATURES)


@given(device_sets, api_features)
def test_no_device_is_lost_and_no_limit_exceeded(device_set: DeviceSet, features: ApiFeatures) -> None:
    kept = reduce_to(device_set, features).device_set
    specs = desired_slices(device_set, OWNER, features)
    assert tuple(chain.from_iterable(spec.devices for spec in specs)) == kept.devices
    placed = tuple(chain.from_iterable(spec.counter_sets for spec in specs))
    assert placed == kept.counter_sets
    assert [spec.index for spec in specs] == list(range(len(specs)))
    for spec in specs:
        encoded = encode_slice(spec, OWNER, generation=1, count=len(specs))
        assert unknown_fields(RESOURCE_SLICES, encoded) == []
        if not (features.combined_counters and spec.counter_sets):  # the validation is that of 1.35 and later
            assert validate_create(RESOURCE_SLICES, encoded) == []
        assert len(spec.devices) <= limits.MAX_DEVICES_WITH_TAINTS_OR_COUNTERS or not features.taints


def test_names_sort_by_index() -> None:
    names = [generate_name(index, OWNER) for index in (0, 1, 15, 16, 255, 4096)]
    assert names[0] == "00000-gpu.nvidia.com-node-0-"
    assert names[2] == "0000f-gpu.nvidia.com-node-0-"
    assert names == sorted(names)


def test_a_long_node_name_leaves_room_for_the_random_end() -> None:
    owner = PoolOwner("gpu.nvidia.com", ".".join(["n" * 60] * 4) + ".example", "uid")
    name = generate_name(3, owner)
    assert len(name) <= 248
    assert name.startswith("00003-gpu.nvidia.com-n")
    encoded = encode_slice(SliceSpec(3), owner, generation=1, count=4)
    assert validate_create(RESOURCE_SLICES, encoded) == []


def test_our_limits_are_the_servers() -> None:
    assert limits.MAX_DEVICES == server_limits.DEVICES
    assert limits.MAX_DEVICES_WITH_TAINTS_OR_COUNTERS == server_limits.DEVICES_WITH_ADVANCED_FEATURES
    assert limits.MAX_COUNTER_SETS == server_limits.COUNTER_SETS
    assert limits.MAX_COUNTERS_PER_SET == server_limits.COUNTERS_PER_SET
    assert MOST_ENTRIES == server_limits.ATTRIBUTES_AND_CAPACITIES
    assert text.MAX_BYTES == server_limits.ATTRIBUTE_VALUE_BYTES
