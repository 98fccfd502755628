"""Slices from the API's dictionaries back to devices: the other way of ``encode``.

Reads what this driver and NVIDIA's write. A value that the model cannot hold (list attributes, say) is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from dra_driver.devices.model import (
    AllocatableDevice,
    AttributeValue,
    Capacity,
    CounterConsumption,
    CounterSet,
    DeviceKind,
    DeviceSet,
    RequestPolicy,
    Taint,
    Version,
)
from dra_driver.devices.shares import kind_of
from dra_driver.quantity import Quantity
from dra_driver.slices.encode import Obj


def published_devices(slices: Iterable[Obj]) -> DeviceSet:
    """The devices and counter sets of one pool's newest generation, in the order in which the scheduler reads them."""
    in_order = sorted(slices, key=lambda each: str(each["metadata"]["name"]))
    newest = max(map(generation_of, in_order), default=0)
    devices: dict[str, AllocatableDevice] = {}
    counter_sets: dict[str, CounterSet] = {}
    for spec in (each["spec"] for each in in_order if generation_of(each) == newest):
        for raw in spec.get("devices") or []:
            devices.setdefault(raw["name"], decode_device(raw))
        for raw in spec.get("sharedCounters") or []:
            counter_sets.setdefault(raw["name"], CounterSet(raw["name"], _counters(raw)))
    return DeviceSet(tuple(devices.values()), tuple(counter_sets.values()))


def driver_of(slice_obj: Obj) -> str:
    """The driver that a slice belongs to; empty when it says none."""
    return str(_spec(slice_obj).get("driver") or "")


def pool_of(slice_obj: Obj) -> str:
    """The name of the pool that a slice belongs to; empty when it says none."""
    return str(_pool(slice_obj).get("name") or "")


def generation_of(slice_obj: Obj) -> int:
    """The pool's generation that a slice belongs to; 0 when it says none."""
    return int(_pool(slice_obj).get("generation") or 0)


def _spec(slice_obj: Obj) -> Obj:
    spec: Obj = slice_obj.get("spec") or {}
    return spec


def _pool(slice_obj: Obj) -> Obj:
    pool: Obj = _spec(slice_obj).get("pool") or {}
    return pool


def decode_device(raw: Obj) -> AllocatableDevice:
    """One entry of ``spec.devices``. Raises ValueError for a quantity that the server would not have stored."""
    attributes = {
        name: value
        for name, wire in (raw.get("attributes") or {}).items()
        if (value := _attribute(wire or {})) is not None
    }
    return AllocatableDevice(
        name=raw["name"],
        kind=_kind(attributes.get("type")),
        gpu_uuid=str(attributes.get("parentUUID") or attributes.get("uuid") or ""),
        attributes=attributes,
        capacity={name: _capacity(wire) for name, wire in (raw.get("capacity") or {}).items()},
        consumes=tuple(
            CounterConsumption(wire["counterSet"], _counters(wire)) for wire in raw.get("consumesCounters") or []
        ),
        taints=tuple(
            Taint(wire["key"], wire.get("value") or "", wire["effect"], wire.get("timeAdded"))
            for wire in raw.get("taints") or []
        ),
        allow_multiple_allocations=bool(raw.get("allowMultipleAllocations")),
    )


def _kind(value: AttributeValue | None) -> DeviceKind:
    try:
        return kind_of(value)
    except ValueError:
        return DeviceKind.GPU


def _attribute(wire: Obj) -> AttributeValue | None:
    for field in ("string", "bool", "int"):
        if wire.get(field) is not None:
            value: AttributeValue = wire[field]
            return value
    return Version(wire["version"]) if wire.get("version") is not None else None


def _capacity(wire: Obj) -> Capacity:
    policy: Any = wire.get("requestPolicy")
    if policy is None:
        return _plain_capacity(wire["value"])
    valid = policy.get("validRange") or {}
    if not {"min", "max", "step"} <= valid.keys() or policy.get("default") is None:
        return _plain_capacity(wire["value"])
    return Capacity(
        Quantity.parse(wire["value"]),
        RequestPolicy(
            default=Quantity.parse(policy["default"]),
            minimum=Quantity.parse(valid["min"]),
            maximum=Quantity.parse(valid["max"]),
            step=Quantity.parse(valid["step"]),
        ),
    )


@lru_cache(maxsize=1024)  # the devices of a node say the same few dozen again and again
def _plain_capacity(value: str) -> Capacity:
    return Capacity(Quantity.parse(value))


def _counters(wire: Obj) -> dict[str, Quantity]:
    return {name: Quantity.parse(counter["value"]) for name, counter in (wire.get("counters") or {}).items()}
