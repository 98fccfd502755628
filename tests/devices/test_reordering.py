"""The order of MIG devices on a node that is partly in use."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.model import AllocatableDevice
from dra_driver.devices.policy import DevicePolicy
from dra_driver.devices.reordering import Arrangement, arrange, by_group, packing_group
from tests.bench.packing.occupancy import Occupancy
from tests.bench.packing.policies import ReorderedAcross
from tests.bench.packing.products import product
from tests.devices.builders import machine
from tests.devices.mig_gpus import H100, instance, mig_gpu

GPUS = 3
NODE = allocatable_devices(machine(*(mig_gpu(number) for number in range(GPUS))), DevicePolicy()).devices


def arranged(*in_use: str, published: Sequence[str] = ()) -> Arrangement:
    return arrange(NODE, in_use, published)


def line(devices: Collection[AllocatableDevice], profile: str) -> list[str]:
    """Where the devices of a profile are, in order: GPU and memory slice."""
    return [
        f"{device.name.split('-')[1]}@{device.name.rsplit('-', 1)[1]}"
        for device in devices
        if device.attributes.get("profile") == profile
    ]


def names(devices: Collection[AllocatableDevice]) -> list[str]:
    return [device.name for device in devices]


def test_on_an_idle_node_the_order_is_the_fixed_one() -> None:
    wanted = arranged().wanted
    assert wanted == tuple(device for group in by_group(NODE) for device in group)
    assert line(wanted, "2g.20gb") == [f"{gpu}@{start}" for gpu in range(GPUS) for start in (4, 2, 0)]
    assert names(wanted)[:GPUS] == ["gpu-0", "gpu-1", "gpu-2"]


def test_a_claim_goes_where_it_breaks_up_least_on_any_gpu() -> None:
    """GPU 0 has lost its 3g at 4 to a 2g, so a 1g costs nothing beside it; GPU 1 is in use as a whole."""
    wanted = arranged("gpu-0-mig-2g20gb-14-4", "gpu-1").wanted
    assert line(wanted, "1g.10gb")[:2] == ["0@6", "0@3"]
    assert line(wanted, "3g.40gb")[:3] == ["0@0", "2@4", "2@0"]
    holes = arranged("gpu-0-mig-3g40gb-9-4", "gpu-1-mig-4g40gb-5-0").wanted
    assert line(holes, "3g.40gb")[:2] == ["1@4", "0@0"]
    assert line(holes, "4g.40gb")[:2] == ["0@0", "2@0"]
    assert line(holes, "1g.10gb")[:3] == ["1@6", "1@5", "1@4"]


def test_what_does_not_fit_comes_last_and_never_asks_for_a_write() -> None:
    published = names(arranged().wanted)
    whole = arranged("gpu-0", published=published)
    assert whole.is_settled
    assert names(whole.wanted) == published
    part = arranged("gpu-2-mig-1g10gb-19-6", published=published)
    assert not part.is_settled
    assert names(part.published) == published
    assert line(part.wanted, "1g.10gb")[:2] == ["2@5", "2@4"]
    assert line(part.wanted, "7g.80gb") == ["0@0", "1@0", "2@0"]
    assert arranged("gpu-2-mig-1g10gb-19-6", published=names(part.wanted)).is_settled


def test_only_another_first_place_asks_for_a_write() -> None:
    """With a 1g on another GPU the places of a 1g would stand in another order, but the next one is the same."""
    one, two = "gpu-0-mig-1g10gb-19-6", "gpu-2-mig-1g10gb-19-6"
    afresh = line(arranged(one, two).wanted, "1g.10gb")
    later = arranged(one, two, published=names(arranged(one).wanted))
    assert line(later.wanted, "1g.10gb") == line(later.published, "1g.10gb") != afresh
    assert line(later.wanted, "1g.10gb")[0] == afresh[0] == "0@5"


def test_a_new_device_is_put_in_its_place_at_once() -> None:
    published = [name for name in names(arranged().wanted) if name != "gpu-1-mig-2g20gb-14-4"]
    arrangement = arranged("gpu-2-mig-1g10gb-19-6", published=published)
    assert line(arrangement.published, "2g.20gb") == line(arrangement.wanted, "2g.20gb")
    assert line(arrangement.published, "1g.10gb")[0] == "0@6"


def test_a_tainted_place_is_none_that_could_be_lost() -> None:
    """Somebody's 1g stands at memory slice 0 of GPU 0: the 3g at 4 is still there to be spared, the 4g is not."""
    foreign = (instance("1g.10gb", 0, foreign=True),)
    node = allocatable_devices(machine(mig_gpu(0, enabled=True, instances=foreign), mig_gpu(1)), DevicePolicy()).devices
    wanted = arrange(node, (), ()).wanted
    assert line(wanted, "1g.10gb")[:4] == ["0@1", "0@3", "0@2", "0@6"]
    assert line(wanted, "1g.10gb")[-1] == "0@0"
    assert line(wanted, "3g.40gb")[:2] == ["0@4", "1@4"]
    assert set(names(wanted)) == set(names(node))


@settings(deadline=None)
@given(st.sets(st.sampled_from(names(NODE))), st.permutations(names(NODE)), st.integers(0, len(NODE)))
def test_devices_only_ever_change_places_within_their_group(in_use: set[str], order: list[str], known: int) -> None:
    """Also for a use that cannot be, and for any published order, of which a part may be missing."""
    arrangement = arrange(NODE, in_use, order[:known])
    groups = [packing_group(device) for device in arranged().wanted]
    for devices in (arrangement.published, arrangement.wanted):
        assert sorted(names(devices)) == sorted(names(NODE))
        assert [packing_group(device) for device in devices] == groups
    again = arrange(NODE, in_use, names(arrangement.wanted))
    assert again.is_settled
    assert again.wanted == arrangement.wanted


@pytest.mark.parametrize("seed", range(4))
def test_the_benchmark_reorders_as_this_does(seed: int) -> None:
    node = product(H100)
    occupancy = Occupancy(node)
    random_ = random.Random(seed)
    gpus = [0] * GPUS
    published = names(arranged().wanted)
    for _ in range(40):
        gpu = random_.randrange(GPUS)
        fitting = [index for index in range(len(node.devices)) if occupancy.fitting(gpus[gpu]) >> index & 1]
        if fitting and random_.random() < 0.6:
            gpus[gpu] |= 1 << random_.choice(fitting)
        elif gpus[gpu]:
            gpus[gpu] &= gpus[gpu] - 1
        in_use = [
            device.name.replace("gpu-0", f"gpu-{number}", 1)
            for number, held in enumerate(gpus)
            for index, device in enumerate(node.devices)
            if held >> index & 1
        ]
        policy = ReorderedAcross(occupancy, GPUS, lifetime=1e9)
        for number, held in enumerate(gpus):
            policy.changed(number, held, 0.0)
        wanted = arranged(*in_use, published=published).wanted
        for kind, profile in enumerate(node.profiles):
            free = {(number, index) for number, held in enumerate(gpus) for _, index in occupancy.line(held, kind)}
            theirs = [
                f"{number}@{placement.start}"
                for number, index in policy.published(kind, now=1e6)
                if (number, index) in free and (placement := node.devices[index].placement) is not None
            ]
            assert [place for place in line(wanted, profile.name) if place in theirs] == theirs
