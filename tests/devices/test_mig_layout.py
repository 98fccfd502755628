"""From a layout's entries to what has to change on one GPU."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.mig_layouts import LayoutEntry, decode, split_profile
from dra_driver.devices.mig_layout import LayoutPlan, LayoutRefusal, entry_for, plan_layout
from dra_driver.hardware.model import ComputeInstance, Gpu, GpuInstance, MigPlacement, MigState
from tests.devices.recorded import mig_machines, recorded_gpu, with_instances
from tests.long_runs import steps

H100 = recorded_gpu("h100-sxm5-80gb")


def entries(*given: dict[str, object]) -> list[LayoutEntry]:
    document = {"version": "v1", "mig-configs": {"x": [{"mig-enabled": True, "mig-devices": {}, **e} for e in given]}}
    return decode(document).mig_configs["x"]


def instance(number: int, gpu: Gpu, profile: str, start: int, *compute: int) -> GpuInstance:
    """GPU instance ``number``; ``compute``: slices of its compute instances."""
    assert gpu.mig is not None
    found = next(each for each in gpu.mig.profiles if each.name == profile)
    instances = tuple(ComputeInstance(index, f"MIG-{number}-{index}", slices) for index, slices in enumerate(compute))
    return GpuInstance(number, found.id, profile, MigPlacement(start, found.placements[0].size), instances)


def planned(gpu: Gpu, counts: dict[str, int]) -> LayoutPlan:
    plan = plan_layout(gpu, counts)
    assert isinstance(plan, LayoutPlan), plan
    return plan


def refusal(gpu: Gpu, counts: dict[str, int]) -> str:
    plan = plan_layout(gpu, counts)
    assert isinstance(plan, LayoutRefusal), plan
    return plan.message


def created(plan: LayoutPlan) -> list[tuple[str, int, tuple[int, ...]]]:
    return [(each.profile.name, each.placement.start, each.compute) for each in plan.create]


def carried_out(gpu: Gpu, plan: LayoutPlan) -> Gpu:
    """The GPU after the plan; compute instances are made at the first free slice."""
    assert gpu.mig is not None
    stay = []
    for kept in plan.keep:
        left = [each for each in kept.instance.compute_instances if each.id not in kept.remove]
        made = [ComputeInstance(10 + n, f"MIG-new-{n}", slices) for n, slices in enumerate(kept.add)]
        stay.append(replace(kept.instance, compute_instances=(*left, *made)))
    for number, new in enumerate(plan.create):
        compute = tuple(ComputeInstance(n, f"MIG-{number}-{n}", slices) for n, slices in enumerate(new.compute))
        stay.append(GpuInstance(100 + number, new.profile.id, new.profile.name, new.placement, compute))
    return with_instances(gpu, *stay)


# -- which entry --------------------------------------------------------------------------------------------------------


def test_entries_are_for_gpus_by_index_and_pci_id() -> None:
    by_index = entries({"devices": [1]}, {"devices": [0, 2]})
    assert entry_for(by_index, H100) is by_index[1]
    assert entry_for(by_index, replace(H100, index=3)) is None
    by_model = entries(
        {"devices": "all", "device-filter": "0x20B010DE"},
        {"devices": "all", "device-filter": ["0x233110DE", "0x233010de"]},
    )
    assert entry_for(by_model, H100) is by_model[1]
    assert entry_for(by_model, replace(H100, pci_device_id=0x20B010DE)) is by_model[0]
    assert entry_for(by_model, replace(H100, pci_device_id=0x20F110DE)) is None
    assert entry_for(by_model, replace(H100, pci_device_id=None)) is None


def test_of_several_entries_the_last_one_counts() -> None:
    both = entries({"devices": "all"}, {"devices": [0], "device-filter": ""})
    assert entry_for(both, H100) is both[1]


# -- what to change -----------------------------------------------------------------------------------------------------


def test_an_empty_gpu_gets_everything() -> None:
    plan = planned(H100, {"1g.10gb": 2, "2g.20gb": 1, "3g.40gb": 1})
    assert created(plan) == [("2g.20gb", 0, (2,)), ("1g.10gb", 2, (1,)), ("1g.10gb", 3, (1,)), ("3g.40gb", 4, (3,))]
    assert not plan.remove
    assert not plan.keep
    assert not plan.done
    assert planned(carried_out(H100, plan), {"1g.10gb": 2, "2g.20gb": 1, "3g.40gb": 1}).done


def test_what_is_wanted_and_there_stays() -> None:
    stays = instance(3, H100, "3g.40gb", 0, 3)
    goes = instance(4, H100, "1g.10gb", 4, 1)
    gpu = with_instances(H100, stays, goes)
    plan = planned(gpu, {"3g.40gb": 2})
    assert plan.remove == (goes,)
    assert [each.instance for each in plan.keep] == [stays]
    assert created(plan) == [("3g.40gb", 4, (3,))]


def test_no_devices_is_a_layout_too() -> None:
    there = instance(1, H100, "7g.80gb", 0, 7)
    plan = planned(with_instances(H100, there), {})
    assert plan == LayoutPlan(remove=(there,))


def test_partial_compute_instances_share_gpu_instances() -> None:
    plan = planned(H100, {"1c.3g.40gb": 2, "2c.3g.40gb": 1})
    assert created(plan) == [("3g.40gb", 0, (2, 1)), ("3g.40gb", 4, (1,))]


def test_a_full_compute_instance_shares_with_nobody() -> None:
    plan = planned(H100, {"1c.3g.40gb": 1, "3g.40gb": 1})
    assert sorted(compute for _name, _start, compute in created(plan)) == [(1,), (3,)]
    assert [compute for *_, compute in created(planned(H100, {"2c.2g.20gb": 1}))] == [(2,)]


def test_compute_instances_are_completed_or_made_anew() -> None:
    whole = instance(1, H100, "4g.40gb", 0, 4)
    (kept,) = planned(with_instances(H100, whole), {"1c.4g.40gb": 4}).keep
    assert (kept.remove, kept.add) == ((0,), (1, 1, 1, 1))
    begun = instance(1, H100, "4g.40gb", 0, 1, 1)
    (kept,) = planned(with_instances(H100, begun), {"1c.4g.40gb": 4}).keep
    assert (kept.remove, kept.add) == ((), (1, 1))
    wrong = instance(1, H100, "4g.40gb", 0, 1)
    (kept,) = planned(with_instances(H100, wrong), {"2c.4g.40gb": 1, "1c.4g.40gb": 1}).keep
    assert (kept.remove, kept.add) == ((0,), (2, 1))
    bare = instance(1, H100, "4g.40gb", 0)
    (kept,) = planned(with_instances(H100, bare), {"4g.40gb": 1}).keep
    assert (kept.remove, kept.add) == ((), (4,))


def test_of_two_instances_the_right_one_stays() -> None:
    split, whole = instance(1, H100, "3g.40gb", 0, 1, 1), instance(2, H100, "3g.40gb", 4, 3)
    plan = planned(with_instances(H100, split, whole), {"3g.40gb": 1})
    assert plan.remove == (split,)
    assert [(each.instance, each.remove, each.add) for each in plan.keep] == [(whole, (), ())]
    both = planned(with_instances(H100, split, whole), {"3g.40gb": 1, "1c.3g.40gb": 2})
    assert both.done


@st.composite
def wishes(draw: st.DrawFn) -> tuple[Gpu, dict[str, int], dict[str, int]]:
    """A GPU, what it had, and what it shall have; with partial compute instances."""
    gpu = recorded_gpu(draw(st.sampled_from(mig_machines())))
    assert gpu.mig is not None
    names = [
        key
        for each in gpu.mig.profiles
        for key in (each.name, *(f"{c}c.{each.name}" for c in range(1, min(each.slice_count, 3))))
    ]
    wish = st.dictionaries(st.sampled_from(names), st.integers(1, 3), max_size=3)
    return gpu, draw(wish), draw(wish)


@given(wishes())
@settings(max_examples=steps(300, 75), deadline=None)
def test_a_plan_brings_about_what_is_asked_and_then_nothing_is_left_to_do(
    wish: tuple[Gpu, dict[str, int], dict[str, int]],
) -> None:
    gpu, before, after = wish
    for counts in (before, after):
        plan = plan_layout(gpu, counts)
        if isinstance(plan, LayoutRefusal):
            assert "do not fit on" in plan.message
            continue
        gpu = carried_out(gpu, plan)
        assert gpu.mig is not None
        assert planned(gpu, counts).done
        assert _devices(gpu.mig) == _wanted(gpu.mig, counts)


def _devices(mig: MigState) -> Counter[tuple[str, int]]:
    """MIG devices by GPU instance profile and compute slices."""
    return Counter((each.profile_name, compute.slices) for each in mig.instances for compute in each.compute_instances)


def _wanted(mig: MigState, counts: dict[str, int]) -> Counter[tuple[str, int]]:
    slices = {profile.name: profile.slice_count for profile in mig.profiles}
    found: Counter[tuple[str, int]] = Counter()
    for key, count in counts.items():
        compute, name = split_profile(key)
        found[name, compute or slices[name]] += count
    return found


# -- refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (
            {"3g.40gb": 2, "1g.10gb": 1},
            (
                "2x 3g.40gb, 1x 1g.10gb do not fit on NVIDIA H100 80GB HBM3; tried: "
                "3g.40gb at 0, 3g.40gb at 4 leaves no place for 1x 1g.10gb"
            ),
        ),
        (
            {"4g.40gb": 1, "7g.80gb": 1},
            (
                "1x 4g.40gb, 1x 7g.80gb do not fit on NVIDIA H100 80GB HBM3; tried: "
                "7g.80gb at 0 leaves no place for 1x 4g.40gb"
            ),
        ),
        (
            {"1g.10gb+me": 2},
            "2x 1g.10gb+me do not fit on NVIDIA H100 80GB HBM3: 2 of 1g.10gb+me are wanted, and a GPU holds at most 1",
        ),
        (
            {"1g.5gb": 1},
            (
                "NVIDIA H100 80GB HBM3 has no MIG profile 1g.5gb, only 1g.10gb, 2g.20gb, 3g.40gb, 4g.40gb, 7g.80gb, "
                "1g.10gb+me, 1g.20gb; did you mean 1g.10gb?"
            ),
        ),
    ],
)
def test_refusals_name_what_was_tried_and_what_exists(counts: dict[str, int], message: str) -> None:
    assert refusal(H100, counts) == message


def test_many_attempts_are_counted() -> None:
    assert refusal(H100, {"1g.10gb": 5, "1g.20gb": 2}) == (
        "5x 1g.10gb, 2x 1g.20gb do not fit on NVIDIA H100 80GB HBM3; tried: "
        "1g.20gb at 4, 1g.20gb at 6 leaves no place for 5x 1g.10gb; "
        "1g.20gb at 0, 1g.20gb at 6 leaves no place for 5x 1g.10gb; "
        "1g.20gb at 2, 1g.20gb at 6 leaves no place for 5x 1g.10gb; and 3 more"
    )


def test_a_gpu_without_mig_has_no_profile() -> None:
    text = refusal(replace(H100, product_name="NVIDIA L40S", mig=None), {"1g.10gb": 1})
    assert text == "NVIDIA L40S has no MIG profile 1g.10gb: it has none at all"
