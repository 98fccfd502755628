"""Which MIG devices are free, by the counters that are published."""

from __future__ import annotations

import pytest

from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.policy import DevicePolicy
from e2e.bench_packing.room import Kind, Room
from e2e.bench_packing.traffic import GPUS, Traffic, Wish, traffic
from tests.bench.packing.products import product
from tests.bench.packing.traces import MIXES_OF_SEVEN, mean_slices
from tests.devices.recorded import recorded

H100 = "h100-sxm5-80gb"
KIND = Kind.of(allocatable_devices(recorded(H100), DevicePolicy(), "n1"))
NODES = ("n1", "n2")
MIX = MIXES_OF_SEVEN[1]


def test_what_is_taken_takes_what_shares_its_memory() -> None:
    room = Room(KIND, NODES)
    whole = dict(room.spots)
    assert (whole["1g.10gb"], whole["3g.40gb"], whole["4g.40gb"]) == (2 * 8 * 7, 2 * 8 * 2, 2 * 8)
    room.take(("n1", "gpu-3-mig-3g40gb-9-4"))
    assert room.spots["1g.10gb"] == whole["1g.10gb"] - 3
    assert room.spots["4g.40gb"] == whole["4g.40gb"]
    assert room.spots["7g.80gb"] == whole["7g.80gb"] - 1
    room.take(("n1", "gpu-3-mig-3g40gb-9-4"))
    room.give_back(("n1", "gpu-3-mig-3g40gb-9-4"))
    room.give_back(("n1", "gpu-3-mig-3g40gb-9-4"))
    assert room.spots == whole


def test_first_fit_goes_in_published_order_on_the_first_node_with_room() -> None:
    room = Room(KIND, NODES)
    assert room.first_fit("1g.10gb", ["n2", "n1"]) == ("n2", "gpu-0-mig-1g10gb-19-6")
    for number in range(GPUS):
        room.take(("n2", f"gpu-{number}"))
    assert room.first_fit("1g.10gb", ["n2", "n1"]) == ("n1", "gpu-0-mig-1g10gb-19-6")
    assert room.first_fit("1g.10gb", ["n2"]) is None


def asked(seed: int = 1, rate: float = 4.0) -> Traffic:
    return traffic(Wish(H100, MIX, rate=rate, load=0.9, seconds=60.0, seed=seed), KIND, NODES)


def test_traffic_is_the_same_for_the_same_seed_and_only_for_it() -> None:
    assert asked() == asked()
    assert asked() != asked(seed=2)


def test_the_beginning_is_what_could_be_there_and_what_comes_is_as_much_as_asked_for() -> None:
    found = asked()
    room = Room(KIND, NODES)
    for beginning in found.beginnings:
        device = KIND.uses[beginning.place[1]]
        assert device
        before = room.spots.total()
        room.take(beginning.place)
        assert room.spots.total() < before
        assert beginning.ends > 0
    assert all(left >= 0 for node in NODES for left in room.left(node).values())
    assert [coming.at for coming in found.coming] == sorted(coming.at for coming in found.coming)
    assert all(0 <= coming.at < 60 for coming in found.coming)
    assert len(found.coming) == pytest.approx(4 * 60, rel=0.25)
    slices = product(H100).slices * GPUS * len(NODES)
    assert found.mean_life * 4.0 * mean_slices(product(H100), MIX) == pytest.approx(0.9 * slices)


def test_every_life_scales_with_the_rate() -> None:
    assert asked(rate=2.0).mean_life == pytest.approx(2 * asked(rate=4.0).mean_life)
