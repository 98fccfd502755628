"""Whether two slice specs say the same, as the API server and the scheduler would read them.

Quantities are compared by value ("1Gi" and "1024Mi"), null, empty and false as absent, map order not at all, and a
taint's time only when both sides have one, within a second. A field that this driver never writes is taken for a
server default of a newer version and passed over; otherwise each look at the pool would rewrite it.
"""

from __future__ import annotations

import datetime
from collections.abc import Hashable, Iterable
from typing import Any

from dra_driver.quantity import Quantity
from dra_driver.slices.encode import Obj

_TIME_TOLERANCE = datetime.timedelta(seconds=1)  # the server keeps whole seconds
_COMPARED = ("nodeName", "devices", "sharedCounters")
TaintKey = tuple[str, str, str, str]


def same_content(wanted: Obj, found: Obj) -> bool:
    """Compare everything of two ResourceSlice specs but the pool's generation and count."""
    if all(wanted.get(name) == found.get(name) for name in _COMPARED):
        return True  # to the letter, as nearly always
    return _content(wanted) == _content(found) and _same_times(wanted, found)


def same_but_order_and_taints(wanted: Obj, found: Obj) -> bool:
    """As :func:`same_content`, with the devices in any order and with any taints."""
    (node, devices, counter_sets), (node_found, devices_found, sets_found) = _content(wanted), _content(found)
    bare, bare_found = frozenset(each for each, _ in devices), frozenset(each for each, _ in devices_found)
    return len(devices) == len(devices_found) and (node, bare, counter_sets) == (node_found, bare_found, sets_found)


def carry_times(wanted: Iterable[Obj], existing: Iterable[Obj]) -> None:
    """Give each taint of the slices ``wanted`` the time that the same taint of the same device already has, in place.

    Otherwise each write would restart the toleration seconds of the pods that use the device. A time that was asked
    for and differs by more than a second stays.
    """
    times = {key: time for slice_obj in existing for key, time in _taint_times(slice_obj.get("spec") or {}).items()}
    for device in (device for slice_obj in wanted for device in _list(slice_obj["spec"], "devices")):
        for taint in _list(device, "taints"):
            time = times.get(_taint_key(device, taint))
            if time and _close(taint.get("timeAdded"), time):
                taint["timeAdded"] = time


def _content(spec: Obj) -> tuple[Hashable, tuple[tuple[Hashable, Hashable], ...], Hashable]:
    """The node, each device with its taints, the counter sets."""
    return (
        spec.get("nodeName"),
        tuple((_device(device), _taints(device)) for device in _list(spec, "devices")),
        tuple((counter_set.get("name"), _counters(counter_set)) for counter_set in _list(spec, "sharedCounters")),
    )


def _device(device: Obj) -> Hashable:
    return (
        device.get("name"),
        _pairs({name: _pairs(value or {}) for name, value in (device.get("attributes") or {}).items()}),
        _pairs({name: _capacity(value or {}) for name, value in (device.get("capacity") or {}).items()}),
        tuple((use.get("counterSet"), _counters(use)) for use in _list(device, "consumesCounters")),
        bool(device.get("allowMultipleAllocations")),
    )


def _taints(device: Obj) -> Hashable:
    return tuple((taint.get("key"), taint.get("value") or "", taint.get("effect")) for taint in _list(device, "taints"))


def _capacity(capacity: Obj) -> Hashable:
    policy = capacity.get("requestPolicy") or {}
    valid_range = policy.get("validRange") or {}
    return (
        _quantity(capacity.get("value")),
        _quantity(policy.get("default")),
        tuple(_quantity(valid_range.get(name)) for name in ("min", "max", "step")),
        tuple(_quantity(value) for value in policy.get("validValues") or ()),
    )


def _counters(holder: Obj) -> Hashable:
    counters = holder.get("counters") or {}
    return _pairs({name: _quantity((counter or {}).get("value")) for name, counter in counters.items()})


def _pairs(mapping: dict[str, Any]) -> Hashable:
    """The entries of a map, without order and without nulls; an int is not a bool."""
    return frozenset(
        (name, type(value).__name__, tuple(value) if isinstance(value, list) else value)
        for name, value in mapping.items()
        if value is not None
    )


def _quantity(value: Any) -> Hashable:
    """A quantity by value; one that cannot be read is only equal to itself, so it is written again."""
    if value is None:
        return None
    try:
        return Quantity.parse(value)
    except ValueError:
        return str(value)


def _same_times(wanted: Obj, found: Obj) -> bool:
    found_times = _taint_times(found)
    return all(_close(time, found_times.get(key)) for key, time in _taint_times(wanted).items())


def _taint_times(spec: Obj) -> dict[TaintKey, str]:
    return {
        _taint_key(device, taint): taint["timeAdded"]
        for device in _list(spec, "devices")
        for taint in _list(device, "taints")
        if taint.get("timeAdded")
    }


def _taint_key(device: Obj, taint: Obj) -> TaintKey:
    return (
        str(device.get("name")),
        str(taint.get("key")),
        str(taint.get("value") or ""),
        str(taint.get("effect")),
    )


def _close(left: str | None, right: str | None) -> bool:
    if left is None or right is None:
        return True
    difference = datetime.datetime.fromisoformat(left) - datetime.datetime.fromisoformat(right)
    return abs(difference) <= _TIME_TOLERANCE


def _list(holder: Obj, name: str) -> list[Obj]:
    return holder.get(name) or []
