"""Slices as the API's dictionaries (resource.k8s.io/v1), written so that what the server echoes is what was sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dra_driver.devices.model import (
    AllocatableDevice,
    AttributeValue,
    Capacity,
    CounterConsumption,
    CounterSet,
    Taint,
    Version,
)
from dra_driver.quantity import Quantity
from dra_driver.slices.cutting import PoolOwner, SliceSpec, generate_name

Obj = dict[str, Any]

API_VERSION = "resource.k8s.io/v1"
KIND = "ResourceSlice"


def encode_slice(spec: SliceSpec, owner: PoolOwner, *, generation: int, count: int) -> Obj:
    """A new ResourceSlice. ``count`` is the number of slices of the pool."""
    body: Obj = {
        "driver": owner.driver,
        "pool": {"name": owner.pool, "generation": generation, "resourceSliceCount": count},
        "nodeName": owner.node_name,
    }
    if spec.counter_sets:
        body["sharedCounters"] = [_counter_set(counter_set) for counter_set in spec.counter_sets]
    if spec.devices or not spec.counter_sets:
        body["devices"] = [encode_device(device) for device in spec.devices]
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"generateName": generate_name(spec.index, owner), "ownerReferences": [owner_reference(owner)]},
        "spec": body,
    }


def owner_reference(owner: PoolOwner) -> Obj:
    """The Node: when it is deleted, the garbage collector deletes the slices."""
    return {"apiVersion": "v1", "kind": "Node", "name": owner.node_name, "uid": owner.node_uid, "controller": True}


def encode_device(device: AllocatableDevice) -> Obj:
    encoded: Obj = {"name": device.name}
    if device.attributes:
        encoded["attributes"] = {name: _attribute(device.attributes[name]) for name in sorted(device.attributes)}
    if device.capacity:
        encoded["capacity"] = {name: _capacity(device.capacity[name]) for name in sorted(device.capacity)}
    if device.consumes:
        encoded["consumesCounters"] = [_consumption(consumption) for consumption in device.consumes]
    if device.taints:
        encoded["taints"] = [_taint(taint) for taint in device.taints]
    if device.allow_multiple_allocations:
        encoded["allowMultipleAllocations"] = True
    return encoded


def _attribute(value: AttributeValue) -> Obj:
    if isinstance(value, Version):
        return {"version": value.text}
    if isinstance(value, bool):
        return {"bool": value}
    return {"int": value} if isinstance(value, int) else {"string": value}


def _capacity(capacity: Capacity) -> Obj:
    encoded: Obj = {"value": str(capacity.value)}
    if policy := capacity.policy:
        encoded["requestPolicy"] = {
            "default": str(policy.default),
            "validRange": {"min": str(policy.minimum), "max": str(policy.maximum), "step": str(policy.step)},
        }
    return encoded


def _counter_set(counter_set: CounterSet) -> Obj:
    return {"name": counter_set.name, "counters": _counters(counter_set.counters)}


def _consumption(consumption: CounterConsumption) -> Obj:
    return {"counterSet": consumption.counter_set, "counters": _counters(consumption.counters)}


def _counters(counters: Mapping[str, Quantity]) -> Obj:
    return {name: {"value": str(counters[name])} for name in sorted(counters)}


def _taint(taint: Taint) -> Obj:
    encoded: Obj = {"key": taint.key, "effect": taint.effect}
    if taint.value:
        encoded["value"] = taint.value
    if taint.time_added is not None:
        encoded["timeAdded"] = taint.time_added
    return encoded
