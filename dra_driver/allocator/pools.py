"""ResourceSlices to pools: which slices count, whether a pool is whole, and its devices in the scheduler's order.

Rules (k8s.io/dynamic-resource-allocation/structured, pools): a pool is (driver, pool name); only slices of its highest
generation count; it is complete when their number equals ``resourceSliceCount``; a device name or a counter set that is
there twice, or a reference to a counter set that is not there, makes it invalid. Order since 1.36: driver, pool name,
slice name, position in the slice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dra_driver.allocator.model import (
    AttributeValue,
    CounterUse,
    Device,
    DeviceId,
    NodeScope,
    Obj,
    Offer,
    RequestPolicy,
    ScalarValue,
    Taint,
    ValidRange,
    Version,
)
from dra_driver.allocator.nodes import Node, in_scope
from dra_driver.quantity import Quantity


@dataclass(frozen=True, slots=True)
class Pool:
    """The newest generation of a pool. ``problem`` says why its devices may not be used; empty when they may."""

    driver: str
    name: str
    generation: int
    devices: tuple[Device, ...]
    scopes: tuple[NodeScope, ...]
    problem: str = ""
    counter_sets: Mapping[str, Mapping[str, Quantity]] = field(default_factory=dict, hash=False)

    def on(self, node: Node) -> Pool | None:
        """The pool as that node sees it, or None when it does not reach the node."""
        if not any(in_scope(scope, node) for scope in self.scopes):
            return None
        devices = tuple(device for device in self.devices if in_scope(device.scope, node))
        return replace(self, devices=devices)


def pools_from_slices(slices: Iterable[Mapping[str, Any]]) -> tuple[Pool, ...]:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for resource_slice in slices:
        spec = resource_slice["spec"]
        groups[(spec["driver"], spec["pool"]["name"])].append(resource_slice)
    return tuple(_pool(driver, name, groups[(driver, name)]) for driver, name in sorted(groups))


def _pool(driver: str, name: str, slices: list[Mapping[str, Any]]) -> Pool:
    newest = max(int(entry["spec"]["pool"].get("generation") or 0) for entry in slices)
    current = [entry for entry in slices if int(entry["spec"]["pool"].get("generation") or 0) == newest]
    current.sort(key=lambda entry: entry["metadata"]["name"])
    expected = int(current[0]["spec"]["pool"]["resourceSliceCount"])
    devices = tuple(
        _device(driver, name, entry["spec"], device)
        for entry in current
        for device in entry["spec"].get("devices") or ()
    )
    counter_sets = [found for entry in current for found in entry["spec"].get("sharedCounters") or ()]
    return Pool(
        driver=driver,
        name=name,
        generation=newest,
        devices=devices,
        scopes=_scopes(current),
        problem=_problem(devices, [found["name"] for found in counter_sets], len(current), expected),
        counter_sets={found["name"]: _counters(found) for found in counter_sets},
    )


def _problem(devices: tuple[Device, ...], counter_sets: list[str], found: int, expected: int) -> str:
    if found != expected:
        return f"incomplete: {found} of {expected} slices are there"
    if twice := _first_twice(device.id.device for device in devices):
        return f"invalid: device name {twice} appears twice"
    if twice := _first_twice(counter_sets):
        return f"invalid: counter set {twice} appears twice"
    for device in devices:
        for use in device.consumes:
            if use.counter_set not in counter_sets:
                return f"invalid: device {device.id.device} consumes counter set {use.counter_set}, which is not there"
    return ""


def _first_twice(names: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _scopes(slices: list[Mapping[str, Any]]) -> tuple[NodeScope, ...]:
    scopes: list[NodeScope] = []
    for entry in slices:
        spec = entry["spec"]
        sources = (spec.get("devices") or ()) if spec.get("perDeviceNodeSelection") else (spec,)
        scopes += [scope for scope in map(_scope, sources) if scope not in scopes]
    return tuple(scopes)


def _scope(source: Mapping[str, Any]) -> NodeScope:
    return NodeScope(node_name=source.get("nodeName") or None, selector=source.get("nodeSelector"))


def _device(driver: str, pool: str, spec: Mapping[str, Any], device: Obj) -> Device:
    attributes: dict[str, dict[str, AttributeValue]] = defaultdict(dict)
    for qualified, value in (device.get("attributes") or {}).items():
        domain, name = _qualify(driver, qualified)
        attributes[domain][name] = _attribute(value)
    offers = {name: _offer(capacity) for name, capacity in (device.get("capacity") or {}).items()}
    capacity: dict[str, dict[str, Quantity]] = defaultdict(dict)
    for qualified, offer in offers.items():
        domain, name = _qualify(driver, qualified)
        capacity[domain][name] = offer.value
    return Device(
        id=DeviceId(driver, pool, device["name"]),
        attributes=dict(attributes),
        capacity=dict(capacity),
        scope=_scope(device if spec.get("perDeviceNodeSelection") else spec),
        taints=tuple(_taint(taint) for taint in device.get("taints") or ()),
        allow_multiple_allocations=bool(device.get("allowMultipleAllocations")),
        consumes=tuple(CounterUse(use["counterSet"], _counters(use)) for use in device.get("consumesCounters") or ()),
        offers=offers,
    )


def _counters(source: Obj) -> dict[str, Quantity]:
    return {name: Quantity.parse(counter["value"]) for name, counter in (source.get("counters") or {}).items()}


def _offer(capacity: Obj) -> Offer:
    policy = capacity.get("requestPolicy")
    return Offer(Quantity.parse(capacity["value"]), None if policy is None else _policy(policy))


def _policy(policy: Obj) -> RequestPolicy:
    valid = policy.get("validRange")
    return RequestPolicy(
        default=_optional_quantity(policy, "default"),
        valid_values=tuple(Quantity.parse(value) for value in policy.get("validValues") or ()),
        valid_range=None
        if valid is None
        else ValidRange(
            Quantity.parse(valid["min"]), _optional_quantity(valid, "max"), _optional_quantity(valid, "step")
        ),
    )


def _optional_quantity(holder: Obj, name: str) -> Quantity | None:
    return None if holder.get(name) is None else Quantity.parse(holder[name])


def _qualify(driver: str, name: str) -> tuple[str, str]:
    domain, _, bare = name.rpartition("/")
    return domain or driver, bare


def _attribute(value: Obj) -> AttributeValue:
    """A DeviceAttribute: exactly one of int, bool, string, version, or a list of them."""
    for kind in ("bool", "int", "string", "version"):
        if value.get(kind) is not None:
            return _scalar(kind, value[kind])
        if value.get(f"{kind}s") is not None:
            return tuple(_scalar(kind, entry) for entry in value[f"{kind}s"])
    return ""


def _scalar(kind: str, value: Any) -> ScalarValue:
    if kind == "bool":
        return bool(value)
    if kind == "int":
        return int(value)
    return Version(str(value)) if kind == "version" else str(value)


def _taint(taint: Obj) -> Taint:
    return Taint(taint["key"], taint.get("value") or "", taint["effect"])
