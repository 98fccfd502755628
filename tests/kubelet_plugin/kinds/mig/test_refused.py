"""What is remembered of refused placements, and for how long."""

from __future__ import annotations

from dra_driver.hardware.model import MigPlacement
from kubelet_plugin.kinds.mig.place import MigPlace
from kubelet_plugin.kinds.mig.refused import RefusedPlacements


def place(start: int, gpu: str = "GPU-0", profile_id: int = 19) -> MigPlace:
    return MigPlace(gpu, profile_id, "1g.10gb", MigPlacement(start, 1), 1)


def test_by_gpu_and_in_the_order_of_placements() -> None:
    refused = RefusedPlacements()
    for each in (place(3), place(1), place(0, "GPU-1"), place(1, profile_id=15)):
        refused.remember(each, f"no {each.placement.start}")
    found = refused.by_gpu()
    assert [(each.placement.start, each.profile_id) for each in found["GPU-0"]] == [(1, 15), (1, 19), (3, 19)]
    assert [each.message for each in found["GPU-1"]] == ["no 0"]


def test_forgotten_when_it_works_after_all_or_after_a_while() -> None:
    now = 0.0
    told: list[int] = []
    refused = RefusedPlacements(seconds=300, clock=lambda: now)
    refused.on_change(lambda: told.append(1))
    assert refused.next_expiry() is None
    refused.remember(place(0), "no")
    refused.remember(place(1), "no")
    assert refused.next_expiry() == 300
    refused.forget(place(0))
    refused.forget(place(0))
    assert len(told) == 3
    now = 299.0
    refused.remember(place(1), "no, again")
    now = 301.0
    assert [each.message for each in refused.by_gpu()["GPU-0"]] == ["no"]
    now = 599.0
    assert refused.by_gpu() == {}


def test_a_message_fits_into_the_inventory() -> None:
    refused = RefusedPlacements()
    refused.remember(place(0), "x" * 5000)
    assert len(refused.by_gpu()["GPU-0"][0].message.encode()) == 1024
