"""Our slices of GPUs with MIG against those that NVIDIA's driver published for the same machines, value by value.

How a difference is worded is decided here, by looking at both sides; ``differences`` holds which are accepted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from api.mig_policy import MigMode
from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.hardware.model import Machine
from dra_driver.kube.interface import RESOURCE_SLICES
from dra_driver.simulation.validation import unknown_fields, validate_create
from dra_driver.slices.cutting import desired_slices
from dra_driver.slices.diff import plan_writes
from dra_driver.slices.encode import Obj
from dra_driver.slices.features import ApiFeatures
from tests.conformance.differences import (
    DYNAMIC,
    DYNAMIC_WITH_WHOLE_GPUS,
    DYNAMIC_WITHOUT_COUNTERS,
    MIG_DIFFERENCES,
    STATIC,
    mig_table,
)
from tests.conformance.machines import DYNAMIC_MIG_RECORDINGS, STATIC_MIG_RECORDINGS, with_bus_ids_reversed
from tests.conformance.orders import names, words_of
from tests.conformance.test_whole_gpus import COMPATIBILITY, SERVER_METADATA, owner_of, recorded

Found = set[tuple[str, str, str]]

SETTINGS = {
    "slices-h100-dynamicmig.json": (DYNAMIC, DYNAMIC_WITH_WHOLE_GPUS),
    "slices-a100-dynamicmig-on01.json": (DYNAMIC,),
    "slices-a100-dynamicmig-off.json": (DYNAMIC_WITHOUT_COUNTERS,),
    "slices-h100-staticmig.json": (STATIC,),
    "slices-a100-staticmig.json": (STATIC,),
}
RECORDINGS = [
    (name, machine, mode)
    for mode, recordings in ((MigMode.DYNAMIC, DYNAMIC_MIG_RECORDINGS), (MigMode.STATIC, STATIC_MIG_RECORDINGS))
    for name, machine in recordings.items()
]
recordings = pytest.mark.parametrize(
    ("recording", "machine", "mode"), RECORDINGS, ids=[name.removesuffix(".json") for name, _, _ in RECORDINGS]
)


def ours(machine: Machine, recording: Sequence[Obj], mode: MigMode) -> list[Obj]:
    policy = DevicePolicy(mig=MigPolicy((MigRule(mode=mode),)))
    owner = owner_of(recording[0])
    desired = desired_slices(allocatable_devices(machine, policy), owner, ApiFeatures())
    return list(plan_writes(desired, [], owner=owner).creates)


def devices_of(slices: Sequence[Obj]) -> list[Obj]:
    return [device for item in slices for device in item["spec"].get("devices") or []]


def content(slices: Sequence[Obj]) -> dict[str, Any]:
    """Everything that is said, by what it is said of; not in which order, and not in how many slices."""
    found: dict[str, Any] = {}
    for index, item in enumerate(slices):
        metadata = {name: value for name, value in item["metadata"].items() if name not in SERVER_METADATA}
        prefix = metadata.pop("generateName")
        found[f"index {index}"] = prefix
        spec = {name: value for name, value in item["spec"].items() if name not in ("devices", "sharedCounters")}
        spec["pool"] = {name: value for name, value in spec["pool"].items() if name != "resourceSliceCount"}
        found |= dict(_leaves({"metadata": metadata, "spec": spec}, ""))
        for counters in item["spec"].get("sharedCounters") or []:
            found |= dict(_leaves(counters, f"sharedCounters[{counters['name']}]"))
    for device in devices_of(slices):
        found |= dict(_leaves(device, f"devices[{device['name']}]"))
    return found


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def observed(theirs: Sequence[Obj], own: Sequence[Obj]) -> Found:
    """Every difference, in the words of the table."""
    return {*_of_cut(theirs, own), *_of_order(theirs, own), *_of_content(theirs, own)}


def _of_cut(theirs: Sequence[Obj], own: Sequence[Obj]) -> Iterator[tuple[str, str, str]]:
    shapes = [
        [
            (
                {device["name"] for device in item["spec"].get("devices") or []},
                len(item["spec"].get("sharedCounters") or []),
            )
            for item in slices
        ]
        for slices in (theirs, own)
    ]
    if shapes[0] != shapes[1]:
        counts = [[len(names) for names, counters in shape if not counters] for shape in shapes]
        assert not any(counters for shape in shapes for _, counters in shape)
        gpus = len(devices_of(theirs))
        assert (counts[0], counts[1]) == ([0] + [1] * gpus, [gpus])
        yield ("slices", "an empty one, then one for each GPU", "one for all GPUs")


def _of_order(theirs: Sequence[Obj], own: Sequence[Obj]) -> Iterator[tuple[str, str, str]]:
    left, right = devices_of(theirs), devices_of(own)
    if names(left) != names(right):
        others = [devices_of(recorded(name)) for name in STATIC_MIG_RECORDINGS]
        yield ("spec.devices (order)", words_of(left, others), words_of(right))
    counter_sets = [
        [counters["name"] for item in slices for counters in item["spec"].get("sharedCounters") or ()]
        for slices in (theirs, own)
    ]
    if counter_sets[0] != counter_sets[1]:
        yield ("spec.sharedCounters (order)", str(counter_sets[0]), str(counter_sets[1]))


def _of_content(theirs: Sequence[Obj], own: Sequence[Obj]) -> Iterator[tuple[str, str, str]]:
    left, right = content(theirs), content(own)
    many = len(theirs) != len(own)
    for path in left.keys() | right.keys():
        said, told = left.get(path, "absent"), right.get(path, "absent")
        if said == told or (many and path.startswith("index ")):
            continue
        name, _, field = path.partition("]")
        if "-mig-" not in name and field == ".capacity.memory.value":
            both = (f"{said}, that of the largest profile", f"{told}, that of the GPU")
            yield ("spec.devices[gpu-*].capacity[memory].value", *both)
        else:
            yield (path, said, told)


@recordings
def test_slices_are_nvidias_but_for_the_listed_differences(recording: str, machine: Machine, mode: MigMode) -> None:
    theirs = recorded(recording)
    listed = {(item.field, item.theirs, item.ours) for item in MIG_DIFFERENCES if item.setting in SETTINGS[recording]}
    assert observed(theirs, ours(machine, theirs, mode)) == listed


@recordings
def test_the_order_of_gpus_is_that_of_the_bus_also_where_it_is_not_that_of_the_names(
    recording: str, machine: Machine, mode: MigMode
) -> None:
    theirs = recorded(recording)
    left, right = (devices_of(ours(each, theirs, mode)) for each in (machine, with_bus_ids_reversed(machine)))
    assert names(left) != names(right)
    assert words_of(left) == words_of(right)


@recordings
def test_both_pass_the_servers_rules(recording: str, machine: Machine, mode: MigMode) -> None:
    theirs = recorded(recording)
    for item in (*theirs, *ours(machine, theirs, mode)):
        assert validate_create(RESOURCE_SLICES, item) == []
        assert unknown_fields(RESOURCE_SLICES, item) == []


@pytest.mark.parametrize("recording", ["slices-h100-dynamicmig.json", "slices-a100-dynamicmig-on01.json"])
def test_taking_over_from_nvidias_driver_changes_the_slices_in_place(recording: str) -> None:
    theirs = recorded(recording)
    machine, owner = DYNAMIC_MIG_RECORDINGS[recording], owner_of(theirs[0])
    policy = DevicePolicy(mig=MigPolicy((MigRule(mode=MigMode.DYNAMIC),)))
    plan = plan_writes(desired_slices(allocatable_devices(machine, policy), owner, ApiFeatures()), theirs, owner=owner)
    assert (plan.creates, plan.deletes) == ((), ())


def test_each_difference_shows_in_a_recording_and_has_a_reason() -> None:
    assert {item.setting for item in MIG_DIFFERENCES} == {each for settings in SETTINGS.values() for each in settings}
    assert all(len(item.reason) > 40 for item in MIG_DIFFERENCES)


def test_the_documentation_shows_the_same_table() -> None:
    assert mig_table() in COMPATIBILITY.read_text()
