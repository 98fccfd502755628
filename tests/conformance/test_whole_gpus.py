"""Our slices of whole GPUs against those that NVIDIA's driver published for the same machines, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dra_driver.devices.allocatable import allocatable_devices
from dra_driver.devices.policy import DevicePolicy
from dra_driver.hardware.model import Machine
from dra_driver.kube.interface import DEVICE_CLASSES, RESOURCE_SLICES
from dra_driver.simulation.validation import unknown_fields, validate_create
from dra_driver.slices.compare import same_content
from dra_driver.slices.cutting import PoolOwner, desired_slices
from dra_driver.slices.diff import plan_writes
from dra_driver.slices.encode import Obj
from dra_driver.slices.features import ApiFeatures
from tests.conformance.differences import ADDITIONAL_ATTRIBUTES, ALWAYS, DIFFERENCES, table
from tests.conformance.machines import RECORDINGS, with_bus_ids_reversed
from tests.conformance.orders import names, words_of

DATA = Path(__file__).parents[1] / "data" / "nvidia-baseline"
COMPATIBILITY = Path(__file__).parents[2] / "docs" / "dev" / "compatibility.md"
ABSENT = "absent"
# Written by the API server, not by a driver.
SERVER_METADATA = ("uid", "resourceVersion", "creationTimestamp", "generation", "name")

recordings = pytest.mark.parametrize(
    ("recording", "machine"), RECORDINGS.items(), ids=[name.removesuffix(".json") for name in RECORDINGS]
)


def recorded(name: str) -> list[Obj]:
    items: list[Obj] = json.loads((DATA / name).read_text())["items"]
    return items


def owner_of(slice_obj: Obj) -> PoolOwner:
    (reference,) = slice_obj["metadata"]["ownerReferences"]
    return PoolOwner(slice_obj["spec"]["driver"], slice_obj["spec"]["nodeName"], reference["uid"])


def ours(machine: Machine, owner: PoolOwner, policy: DevicePolicy) -> list[Obj]:
    desired = desired_slices(allocatable_devices(machine, policy), owner, ApiFeatures())
    return list(plan_writes(desired, [], owner=owner).creates)


def flat(slice_obj: Obj) -> dict[str, Any]:
    """Paths and values; devices by name, since their order is compared apart."""
    metadata = {name: value for name, value in slice_obj["metadata"].items() if name not in SERVER_METADATA}
    spec = {**slice_obj["spec"], "devices": {device["name"]: device for device in slice_obj["spec"]["devices"]}}
    whole = {"apiVersion": slice_obj["apiVersion"], "kind": slice_obj["kind"], "metadata": metadata, "spec": spec}
    return dict(_leaves(whole, ""))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            keyed = path.endswith((".devices", ".attributes", ".capacity"))
            yield from _leaves(inner, f"{path}[{name}]" if keyed else f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def observed_differences(theirs: Obj, own: Obj) -> set[tuple[str, str, str]]:
    """Differing fields as (field, theirs, ours), in the terms of the table."""
    found = set()
    left, right = flat(theirs), flat(own)
    for path in left.keys() | right.keys():
        if left.get(path, ABSENT) != right.get(path, ABSENT):
            if path not in left and path.rpartition(".")[2] in ("int", "bool", "string", "version"):
                attribute, _, kind = path.rpartition(".")
                field = "spec.devices[*].attributes" + attribute.rpartition(".attributes")[2]
                found.add((field, ABSENT, kind))
            else:
                found.add((path, str(left.get(path, ABSENT)), str(right.get(path, ABSENT))))
    left_devices, right_devices = theirs["spec"]["devices"], own["spec"]["devices"]
    if names(left_devices) != names(right_devices):
        others = [recorded(name)[0]["spec"]["devices"] for name in RECORDINGS]
        found.add(("spec.devices (order)", words_of(left_devices, others), words_of(right_devices)))
    return found


def listed(*settings: str) -> set[tuple[str, str, str]]:
    return {(item.field, item.theirs, item.ours) for item in DIFFERENCES if item.setting in settings}


@recordings
def test_slices_are_nvidias_but_for_the_listed_differences(recording: str, machine: Machine) -> None:
    (theirs,) = recorded(recording)
    (own,) = ours(machine, owner_of(theirs), DevicePolicy())
    assert observed_differences(theirs, own) == listed(ALWAYS)


@recordings
def test_additional_attributes_are_the_only_further_difference(recording: str, machine: Machine) -> None:
    (theirs,) = recorded(recording)
    (own,) = ours(machine, owner_of(theirs), DevicePolicy(additional_attributes=True))
    assert observed_differences(theirs, own) == listed(ALWAYS, ADDITIONAL_ATTRIBUTES)


@recordings
def test_the_order_is_that_of_the_bus_also_where_it_is_not_that_of_the_names(recording: str, machine: Machine) -> None:
    (theirs,) = recorded(recording)
    (own,) = ours(with_bus_ids_reversed(machine), owner_of(theirs), DevicePolicy())
    devices = own["spec"]["devices"]
    assert names(devices) != sorted(names(devices))
    assert words_of(devices) == "by PCI bus id"


@recordings
def test_both_pass_the_servers_rules(recording: str, machine: Machine) -> None:
    (theirs,) = recorded(recording)
    for item in (theirs, *ours(machine, owner_of(theirs), DevicePolicy(additional_attributes=True))):
        assert validate_create(RESOURCE_SLICES, item) == []
        assert unknown_fields(RESOURCE_SLICES, item) == []


@recordings
def test_taking_over_from_nvidias_driver_changes_the_slice_in_place(recording: str, machine: Machine) -> None:
    """An upgrade from NVIDIA's driver: names, owner and generation are understood, so nothing is deleted."""
    found = recorded(recording)
    owner = owner_of(found[0])
    desired = desired_slices(allocatable_devices(machine, DevicePolicy()), owner, ApiFeatures())
    plan = plan_writes(desired, found, owner=owner)
    assert (plan.creates, plan.deletes, plan.generation) == ((), (), 1)
    assert len(plan.updates) == 1, "the recorded order is random"
    by_bus = sorted(
        found[0]["spec"]["devices"], key=lambda item: item["attributes"]["resource.kubernetes.io/pciBusID"]["string"]
    )
    assert same_content(plan.updates[0]["spec"], {**found[0]["spec"], "devices": by_bus})


def test_every_kind_of_difference_has_a_reason() -> None:
    assert len({item.field for item in DIFFERENCES}) == len(DIFFERENCES)
    assert all(len(item.reason) > 40 for item in DIFFERENCES)


def test_the_documentation_shows_the_same_table() -> None:
    assert table() in COMPATIBILITY.read_text()


def test_nvidias_device_classes_are_accepted() -> None:
    classes = list(yaml.safe_load_all((DATA / "deviceclasses-rendered.yaml").read_text()))
    assert [item["metadata"]["name"] for item in classes] == [
        "compute-domain-daemon.nvidia.com",
        "compute-domain-default-channel.nvidia.com",
        "gpu.nvidia.com",
        "mig.nvidia.com",
        "vfio.gpu.nvidia.com",
    ]
    for item in classes:
        assert validate_create(DEVICE_CLASSES, item) == []
        assert unknown_fields(DEVICE_CLASSES, item) == []
