"""Whatever changes while claims hold devices: no two devices that share hardware can be allocated together.

The checker knows where each device lies from its name and the profiles of the machine, and what the scheduler knows
from the published counters; it shares no code with what it checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.mig_policy import MigMode
from controller.retention import Retention, retain, retention_problem
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.model import AllocatableDevice, DeviceSet
from dra_driver.devices.naming import GpuName, parse_name
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.devices.selector import GpuSelector
from dra_driver.hardware.model import Gpu, GpuInstance, Machine, RefusedPlacement
from dra_driver.quantity import Quantity
from dra_driver.slices.cutting import PoolOwner, desired_slices
from dra_driver.slices.features import ApiFeatures
from tests.devices.builders import machine
from tests.devices.mig_gpus import A100, AMPERE, H100, instance, mig_gpu
from tests.devices.recorded import recorded_profiles
from tests.long_runs import steps

DRIVER = "gpu.nvidia.com"
OWNER = PoolOwner(DRIVER, "node-0", "11111111-2222-3333-4444-555555555555")
ALL = ApiFeatures()
NO_COUNTERS = ApiFeatures(partitionable=False)


# -- the checker ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Which hardware a device is. ``part``: its compute slices, when it is a part of the GPU instance there."""

    uuid: str
    slices: frozenset[int]
    gpu_instance: tuple[int, int] = (-1, -1)
    part: frozenset[int] | None = None

    def overlaps(self, other: Place) -> bool:
        if self.uuid != other.uuid or not self.slices & other.slices:
            return False
        if self.gpu_instance == other.gpu_instance and self.part is not None and other.part is not None:
            return bool(self.part & other.part)
        return True


def place_of(name: str, on: Machine) -> Place | None:
    """None for a device of a GPU that is not there, or with a profile that it does not have."""
    parsed = parse_name(name)
    gpu = next((gpu for gpu in on.gpus if gpu.minor == parsed.minor), None)
    if gpu is None:
        return None
    if isinstance(parsed, GpuName):
        return Place(gpu.uuid, frozenset(range(8)))
    profile = gpu.mig.profile(parsed.profile_id) if gpu.mig else None
    if profile is None or parsed.start not in {placement.start for placement in profile.placements}:
        return None
    size = profile.placements[0].size
    part = parsed.compute_slices()
    return Place(
        gpu.uuid,
        frozenset(range(parsed.start, parsed.start + size)),
        (parsed.profile_id, parsed.start),
        None if part is None else frozenset(part),
    )


@dataclass
class Scheduler:
    """What may be allocated from a pool, as k8s.io/dynamic-resource-allocation decides it."""

    pool: DeviceSet
    in_use: Iterable[str]
    left: dict[str, dict[str, Quantity]] = field(init=False)

    def __post_init__(self) -> None:
        self.left = {found.name: dict(found.counters) for found in self.pool.counter_sets}
        for device in self.pool.devices:
            if device.name in self.in_use:
                self.take(device)

    def take(self, device: AllocatableDevice) -> None:
        for use in device.consumes:
            for name, quantity in use.counters.items():
                self.left[use.counter_set][name] -= quantity

    def may_take(self, device: AllocatableDevice) -> bool:
        return (
            device.name not in self.in_use
            and not any(taint.effect == "NoSchedule" for taint in device.taints)
            and all(
                self.left[use.counter_set][name] >= quantity
                for use in device.consumes
                for name, quantity in use.counters.items()
            )
        )

    def free(self) -> list[AllocatableDevice]:
        return [device for device in self.pool.devices if self.may_take(device)]


def check(pool: DeviceSet, held: Mapping[str, Place], on: Machine, features: ApiFeatures) -> None:
    """``held``: where the devices in use lay when they were allocated."""
    names = [device.name for device in pool.devices]
    assert len(set(names)) == len(names)
    free = Scheduler(pool, held).free()
    places = {device.name: place_of(device.name, on) for device in free}
    for device in free:
        place = places[device.name]
        assert place is not None, f"{device.name} does not exist"
        for name, taken in held.items():
            assert not place.overlaps(taken), f"{device.name} can be allocated beside {name}"
        beside = Scheduler(pool, held)
        beside.take(device)
        for other in beside.free():
            there = places[other.name]
            if other.name != device.name and there is not None:
                assert not place.overlaps(there), f"{other.name} can be allocated beside {device.name}"
    if not features.partitionable:
        assert not any(device.consumes for device in pool.devices)
        assert pool.counter_sets == ()
    if not features.taints:
        assert not any(device.taints for device in pool.devices)
    for combined in (True, False) if features.partitionable else (False,):
        desired = desired_slices(pool, OWNER, replace(features, combined_counters=combined))
        assert sorted(device.name for spec in desired for device in spec.devices) == sorted(names)


# -- the table of transitions -----------------------------------------------------------------------------------------


def policy(mode: MigMode | None = None, **rule: Any) -> DevicePolicy:
    return DevicePolicy(mig=MigPolicy((MigRule(mode=mode, **rule),)))


def a100(**changes: Any) -> Gpu:
    return mig_gpu(profiles=A100, **{**AMPERE, **changes})


ONE_G = "gpu-0-mig-1g10gb-19-6"
HALF = "gpu-0-mig-3g40gb-9-4"


@dataclass(frozen=True)
class Step:
    """A change under a claim that holds ``in_use``. ``retained`` and ``withheld`` are what is said of it afterwards;
    ``offered`` names devices that still, and ``gone`` those that may not, be allocated."""

    name: str
    before: Gpu
    policy_before: DevicePolicy
    after: Sequence[Gpu]
    policy_after: DevicePolicy
    in_use: str
    retained: bool
    offered: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    features: ApiFeatures = ALL


DYNAMIC, STATIC, OFF = policy(MigMode.DYNAMIC), policy(MigMode.STATIC), policy(MigMode.OFF)
ON_HALF = (instance("3g.40gb", 4),)

STEPS = (
    Step("nothing changes", mig_gpu(), DYNAMIC, [mig_gpu()], DYNAMIC, ONE_G, False, ("gpu-0-mig-1g10gb-19-0",)),
    Step("mode goes on", mig_gpu(), DYNAMIC, [mig_gpu(enabled=True)], DYNAMIC, "gpu-0", False),
    Step("an upgrade makes a GPU in use divisible", mig_gpu(), OFF, [mig_gpu()], DYNAMIC, "gpu-0", False),
    Step("a whole GPU in use is no longer divisible", mig_gpu(), DYNAMIC, [mig_gpu()], OFF, "gpu-0", False),
    Step("dynamic to off, not prepared yet", mig_gpu(), DYNAMIC, [mig_gpu()], OFF, ONE_G, True, (), ("gpu-0",)),
    Step("dynamic to off, prepared", mig_gpu(), DYNAMIC, [mig_gpu(enabled=True, instances=ON_HALF)], OFF, HALF, True),
    Step(
        "dynamic to static", mig_gpu(), DYNAMIC,
        [mig_gpu(enabled=True, instances=(instance("1g.10gb", 0), *ON_HALF))], STATIC,
        HALF, True, ("gpu-0-mig-1g10gb-19-0",),
    ),
    Step(
        "dynamic to static with something else in its place", mig_gpu(), DYNAMIC,
        [mig_gpu(enabled=True, instances=(instance("1g.10gb", 6), instance("1g.10gb", 0)))], STATIC,
        HALF, True, ("gpu-0-mig-1g10gb-19-0",), ("gpu-0-mig-1g10gb-19-6",),
    ),
    Step(
        "static to dynamic", mig_gpu(enabled=True, instances=ON_HALF), STATIC,
        [mig_gpu(enabled=True, instances=ON_HALF)], DYNAMIC,
        HALF, True, ("gpu-0-mig-3g40gb-9-0",), ("gpu-0", "gpu-0-mig-1g10gb-19-6", "gpu-0-mig-7g80gb-0-0"),
    ),
    Step(
        "static instance replaced by hand", mig_gpu(enabled=True, instances=ON_HALF), STATIC,
        [mig_gpu(enabled=True, instances=(instance("2g.20gb", 4), instance("2g.20gb", 0)))], STATIC,
        HALF, True, ("gpu-0-mig-2g20gb-14-0",), ("gpu-0-mig-2g20gb-14-4",),
    ),
    Step(
        "static MIG switched off by hand", mig_gpu(enabled=True, instances=ON_HALF), STATIC, [mig_gpu()], STATIC,
        HALF, True, (), ("gpu-0",),
    ),
    Step(
        "Ampere's mode goes on under a whole GPU", a100(), policy(),
        [a100(enabled=True, instances=(instance("3g.20gb", 0, of=A100),))], policy(),
        "gpu-0", True, (), ("gpu-0-mig-3g20gb-9-0",),
    ),
    Step(
        "Ampere's mode goes off under a placement", a100(enabled=True), DYNAMIC, [a100()], DYNAMIC,
        "gpu-0-mig-3g20gb-9-0", True, (), ("gpu-0",),
    ),
    Step("the GPU is lost", mig_gpu(), DYNAMIC, [], DYNAMIC, ONE_G, True),
    Step(
        "another GPU comes in its place", mig_gpu(), DYNAMIC, [a100(uuid="GPU-new", enabled=True)], DYNAMIC,
        ONE_G, True, ("gpu-0-mig-3g20gb-9-0",),
    ),
    Step(
        "the GPU gets another minor number", mig_gpu(), DYNAMIC, [replace(mig_gpu(), minor=1)], DYNAMIC,
        ONE_G, True, ("gpu-1-mig-1g10gb-19-0",), ("gpu-1", "gpu-1-mig-1g10gb-19-6"),
    ),
    Step(
        "a foreign instance appears", mig_gpu(), DYNAMIC,
        [mig_gpu(enabled=True, instances=(instance("3g.40gb", 0, foreign=True),))], DYNAMIC, ONE_G, False,
        ("gpu-0-mig-1g10gb-19-5",), ("gpu-0", "gpu-0-mig-1g10gb-19-0"),
    ),
    Step(
        "no counters: the greedy choice moves away from what is held", a100(enabled=True), DYNAMIC,
        [a100(enabled=True, instances=(instance("1g.5gb", 0, of=A100, foreign=True),))], DYNAMIC,
        "gpu-0-mig-1g5gb-19-0", True, ("gpu-0-mig-1g5gb-19-6",), (), NO_COUNTERS,
    ),
    Step(
        "no counters: dynamic to off", a100(enabled=True), DYNAMIC, [a100()], OFF, "gpu-0-mig-1g5gb-19-3", True, (),
        ("gpu-0",), NO_COUNTERS,
    ),
)  # fmt: skip


def published(on: Machine, by: DevicePolicy, features: ApiFeatures) -> DeviceSet:
    return retain(allocatable_devices(on, by, "node-0"), DeviceSet(), (), DRIVER, features).device_set


@pytest.mark.parametrize("step", STEPS, ids=[step.name for step in STEPS])
def test_transition(step: Step) -> None:
    first, then = machine(step.before), machine(*step.after)
    before = published(first, step.policy_before, step.features)
    held = {step.in_use: place_of(step.in_use, first)}
    assert step.in_use in {device.name for device in before.devices}
    offered = allocatable_devices(then, step.policy_after, "node-0")
    kept = retain(offered, before, held, DRIVER, step.features)
    assert kept.retained == ((step.in_use,) if step.retained else ())
    assert step.in_use in {device.name for device in kept.device_set.devices}
    check(kept.device_set, {name: place for name, place in held.items() if place}, then, step.features)
    free = {device.name for device in Scheduler(kept.device_set, held).free()}
    assert set(step.offered) <= free
    assert not set(step.gone) & free
    assert retain(offered, kept.device_set, held, DRIVER, step.features).device_set == kept.device_set, "not stable"
    freed = retain(offered, kept.device_set, (), DRIVER, step.features)
    assert freed.device_set == published(then, step.policy_after, step.features), "not as before once it is free"


def test_people_learn_what_is_withheld_and_why() -> None:
    before = published(machine(mig_gpu()), DYNAMIC, ALL)
    kept = retain(allocatable_devices(machine(mig_gpu()), OFF), before, {ONE_G}, DRIVER, ALL)
    problem = retention_problem(kept)
    assert problem is not None
    assert problem.reason == "AllocatedDeviceUnavailable"
    assert problem.message.endswith("not offered until then, because they overlap: gpu-0")


def test_what_overlaps_a_device_of_which_only_the_name_is_known_is_withheld_as_well() -> None:
    """After a wipe and a restart of the controller, under another policy."""
    kept = retain(allocatable_devices(machine(mig_gpu()), OFF), DeviceSet(), {ONE_G}, DRIVER, ALL)
    assert (kept.lost, kept.withheld, kept.device_set.devices) == ((ONE_G,), ("gpu-0",), ())
    problem = retention_problem(kept)
    assert problem is not None
    assert "because they overlap: gpu-0" in problem.message


def test_parts_of_one_gpu_instance_are_not_in_each_others_way() -> None:
    shared = mig_gpu(enabled=True, instances=(instance("3g.40gb", 4, (1, 0), (2, 1)),))
    before = published(machine(shared), STATIC, ALL)
    kept = retain(allocatable_devices(machine(shared), STATIC), before, {"gpu-0-mig-1c3g40gb-9-4-c0"}, DRIVER, ALL)
    assert kept == Retention(before)


# -- any sequence of changes ------------------------------------------------------------------------------------------


@st.composite
def instances(draw: st.DrawFn, product: str) -> tuple[GpuInstance, ...]:
    """GPU instances that lie apart, some foreign, some cut into several compute instances."""
    taken: set[int] = set()
    found = []
    profiles = {each.name: each for each in recorded_profiles(product)}
    for name in draw(st.lists(st.sampled_from(sorted(profiles)), max_size=4)):
        placement = draw(st.sampled_from(profiles[name].placements))
        slices = set(range(placement.start, placement.end))
        if slices & taken:
            continue
        taken |= slices
        whole = profiles[name].slice_count
        parts = [(1, 0), (whole - 1, 1)] if whole > 1 and draw(st.booleans()) else []
        found.append(instance(name, placement.start, *parts, foreign=draw(st.booleans()), of=product))
    return tuple(sorted(found, key=lambda each: each.placement))


@st.composite
def gpus(draw: st.DrawFn, minor: int) -> Gpu | None:
    """What is found as GPU ``minor``: nothing, one of two products, one of two boards."""
    product = draw(st.sampled_from([H100, H100, A100]))
    if draw(st.integers(0, 9)) == 0:
        return None
    enabled = draw(st.booleans())
    refused: tuple[RefusedPlacement, ...] = ()
    if draw(st.integers(0, 4)) == 0:
        profile = draw(st.sampled_from(recorded_profiles(product)))
        refused = (RefusedPlacement(profile.id, draw(st.sampled_from(profile.placements)), "no"),)
    board = draw(st.sampled_from([0, 0, 0, 1]))
    return mig_gpu(
        minor,
        product,
        enabled=enabled,
        instances=draw(instances(product)) if enabled else (),
        refused=refused,
        uuid=f"GPU-{product}-{minor}-{board}",
        **(AMPERE if product == A100 else {}),
    )


rules = st.builds(
    MigRule,
    selector=st.builds(GpuSelector, minors=st.sampled_from([(), (0,), (1,)])),
    mode=st.sampled_from([None, *MigMode]),
    partial_compute_instances=st.booleans(),
    adopt_foreign=st.booleans(),
)
policies = st.builds(
    lambda rules, default: DevicePolicy(mig=MigPolicy(tuple(rules), dynamic_by_default=default)),
    st.lists(rules, max_size=2),
    st.booleans(),
)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    found = [gpu for gpu in (draw(gpus(0)), draw(gpus(1))) if gpu]
    if len(found) == 2 and draw(st.integers(0, 5)) == 0:  # minor numbers are dealt out anew
        found = [replace(found[0], minor=1), replace(found[1], minor=0)]
    return machine(*found)


@given(st.data(), st.builds(ApiFeatures, partitionable=st.booleans(), taints=st.booleans()))
@settings(max_examples=steps(150, 37), deadline=None)
def test_no_sequence_of_changes_lets_hardware_be_allocated_twice(data: st.DataObject, features: ApiFeatures) -> None:
    held: dict[str, Place] = {}
    pool = DeviceSet()
    by = DevicePolicy()
    for _ in range(data.draw(st.integers(2, 5))):
        on = data.draw(machines())
        by = data.draw(policies)
        kept = retain(allocatable_devices(on, by, "node-0"), pool, set(held), DRIVER, features)
        pool = kept.device_set
        assert kept.lost == ()
        assert held.keys() <= {device.name for device in pool.devices}
        check(pool, held, on, features)
        for _ in range(data.draw(st.integers(0, 3))):
            free = Scheduler(pool, held).free()
            if free:
                name = data.draw(st.sampled_from([device.name for device in free]))
                place = place_of(name, on)
                assert place is not None
                held[name] = place
        for name in data.draw(st.lists(st.sampled_from(sorted(held)), max_size=2)) if held else ():
            held.pop(name, None)
