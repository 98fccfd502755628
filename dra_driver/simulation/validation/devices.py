"""Rules of one device of a ResourceSlice: name, attributes, capacities, counters, taints, node fields."""

from __future__ import annotations

import re

from dra_driver.quantity import Quantity
from dra_driver.simulation.validation import limits, names
from dra_driver.simulation.validation.cause import Cause, invalid, not_found, required, too_long, too_many
from dra_driver.simulation.validation.node_selectors import validate_node_selector
from dra_driver.simulation.validation.reading import Fields, each, fields, items, strings, text
from dra_driver.simulation.validation.request_policies import validate_capacity
from dra_driver.simulation.validation.taints import validate_binding_conditions, validate_taint

LIST_ATTRIBUTES = ("ints", "bools", "strings", "versions")
_ATTRIBUTE_TYPES = ("int", "bool", "string", "version", *LIST_ATTRIBUTES)
# SemVer 2.0.0, as pkg/apis/resource/validation wants it: no leading "v", no leading zeros, three parts.
_NUMBER = r"(0|[1-9][0-9]*)"
_PRE_RELEASE = r"(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_BUILD = r"[0-9A-Za-z-]+"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRE_RELEASE}(\.{_PRE_RELEASE})*)?(\+{_BUILD}(\.{_BUILD})*)?", re.ASCII
)
_NODE_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_PER_DEVICE = (
    "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set"
)


def validate_device(path: str, device: Fields, *, per_device_nodes: bool) -> list[Cause]:
    causes = names.dns_label(f"{path}.name", text(device, "name"))
    causes += _sizes(device, path)
    for key, attribute in fields(device, "attributes").items():
        causes += names.qualified_name(f"{path}.attributes", key)
        causes += _attribute(attribute or {}, f"{path}.attributes[{key}]")
    for key, capacity in fields(device, "capacity").items():
        causes += names.qualified_name(f"{path}.capacity", key)
        shared = bool(device.get("allowMultipleAllocations"))
        causes += validate_capacity(capacity or {}, f"{path}.capacity[{key}]", shared=shared)
    causes += each(items(device, "taints"), f"{path}.taints", limits.TAINTS, validate_taint)
    causes += each(
        items(device, "consumesCounters"),
        f"{path}.consumesCounters",
        limits.COUNTER_CONSUMPTIONS,
        _consumption,
        key=lambda consumption: text(consumption, "counterSet"),
    )
    causes += _node_fields(device, path, per_device_nodes=per_device_nodes)
    causes += validate_binding_conditions(device, path)
    causes += _node_allocatable(device, f"{path}.nodeAllocatableResources")
    return causes


def validate_counters(holder: Fields, path: str, limit: int) -> list[Cause]:
    counters = fields(holder, "counters")
    if not counters:
        return [required(f"{path}.counters")]
    if len(counters) > limit:
        return [too_many(f"{path}.counters", len(counters), limit)]
    return [cause for name in counters for cause in names.dns_label(f"{path}.counters", name)]


def _sizes(device: Fields, path: str) -> list[Cause]:
    attributes = fields(device, "attributes")
    entries = len(attributes) + len(fields(device, "capacity"))
    values = sum(_value_count(attribute or {}) for attribute in attributes.values())
    causes: list[Cause] = []
    if entries > limits.ATTRIBUTES_AND_CAPACITIES:
        detail = f"the total number of attributes and capacities must not exceed {limits.ATTRIBUTES_AND_CAPACITIES}"
        causes.append(invalid(path, entries, detail))
    if values > limits.ATTRIBUTE_VALUES:
        detail = f"the total number of attribute values must not exceed {limits.ATTRIBUTE_VALUES}"
        causes.append(invalid(path, values, detail))
    return causes


def _value_count(attribute: Fields) -> int:
    return sum(len(items(attribute, name)) for name in LIST_ATTRIBUTES) or 1


def _attribute(attribute: Fields, path: str) -> list[Cause]:
    held = [name for name in _ATTRIBUTE_TYPES if attribute.get(name) is not None]
    causes: list[Cause] = []
    if len(held) != 1:
        causes.append(invalid(path, attribute or "", "exactly one value must be specified"))
    for name in held:
        values = attribute[name] if name in LIST_ATTRIBUTES else [attribute[name]]
        if not values:
            causes.append(invalid(f"{path}.{name}", values, "must not be empty if specified"))
        for index, value in enumerate(values):
            value_path = f"{path}.{name}[{index}]" if name in LIST_ATTRIBUTES else f"{path}.{name}"
            if name in ("version", "versions") and not _SEMVER.fullmatch(value or ""):
                causes.append(invalid(value_path, value, "must be a string compatible with semver.org spec 2.0.0"))
            if isinstance(value, str) and len(value.encode()) > limits.ATTRIBUTE_VALUE_BYTES:
                causes.append(too_long(value_path, limits.ATTRIBUTE_VALUE_BYTES))
    return causes


def _consumption(path: str, consumption: Fields) -> list[Cause]:
    counter_set = text(consumption, "counterSet")
    causes = names.dns_label(f"{path}.counterSet", counter_set) if counter_set else [required(f"{path}.counterSet")]
    causes += validate_counters(consumption, path, limits.COUNTERS_PER_CONSUMPTION)
    groups = strings(consumption, "compatibilityGroups")
    groups_path = f"{path}.compatibilityGroups"
    return causes + each(groups, groups_path, limits.COMPATIBILITY_GROUPS, names.dns_label, key=str)


def _node_fields(device: Fields, path: str, *, per_device_nodes: bool) -> list[Cause]:
    present = [name for name in ("nodeName", "nodeSelector", "allNodes") if device.get(name) is not None]
    if not per_device_nodes:
        if not present:
            return []
        detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true"
        return [invalid(path, None, f"{detail} in the ResourceSlice spec")]
    causes: list[Cause] = []
    if "nodeName" in present:
        name = device["nodeName"]
        causes += (
            names.dns_subdomain(f"{path}.nodeName", name)
            if name
            else [invalid(f"{path}.nodeName", "", "must not be empty")]
        )
    if "nodeSelector" in present:
        causes += validate_node_selector(device["nodeSelector"], f"{path}.nodeSelector")
    if device.get("allNodes") is False:
        causes.append(invalid(f"{path}.allNodes", value=False, detail="must be either unset or set to true"))
    usable = [name for name in present if device[name]]
    if not usable:
        causes.append(required(path, f"{_PER_DEVICE} to true in the ResourceSlice spec"))
    elif len(usable) > 1:
        shown = "{" + ", ".join(f"`{name}`" for name in usable) + "}"
        causes.append(invalid(path, shown, f"{_PER_DEVICE} to true in the ResourceSlice spec"))
    return causes


def _node_allocatable(device: Fields, path: str) -> list[Cause]:
    """KEP-5517 in its 1.37 shape: what a device costs of the node's own resources."""
    causes: list[Cause] = []
    for name, entry in fields(device, "nodeAllocatableResources").items():
        key_path, entry = f"{path}[{name}]", entry or {}
        if name not in _NODE_RESOURCES and not name.startswith("hugepages-"):
            causes.append(invalid(key_path, name, "must be a node allocatable resource name"))
        mapping, overhead = entry.get("mapping"), entry.get("overhead")
        if mapping is None and overhead is None:
            causes.append(required(key_path, "at least one of mapping or overhead must be set"))
        if mapping is not None:
            causes += _mapping(mapping, fields(device, "capacity"), f"{key_path}.mapping")
        if overhead is not None:
            causes += _overhead(overhead, f"{key_path}.overhead")
    return causes


def _mapping(mapping: Fields, capacities: Fields, path: str) -> list[Cause]:
    causes: list[Cause] = []
    key, factor = mapping.get("capacityKey"), mapping.get("capacityMultiplier")
    if key == "":
        causes.append(invalid(f"{path}.capacityKey", "", "capacityKey must not be an empty string"))
    elif key is not None and key not in capacities:
        causes.append(not_found(f"{path}.capacityKey", key))
    if key is not None and factor is None:
        causes.append(required(f"{path}.capacityMultiplier", "capacityMultiplier is required when capacityKey is set"))
    if key is None and factor is not None:
        causes.append(required(f"{path}.capacityKey", "capacityKey is required when capacityMultiplier is set"))
    for name in ("capacityMultiplier", "deviceMultiplier"):
        value = mapping.get(name)
        if value is not None and Quantity.parse(value) <= Quantity.of(0):
            causes.append(invalid(f"{path}.{name}", value, "must be positive"))
    return causes


def _overhead(overhead: Fields, path: str) -> list[Cause]:
    held = {name: overhead[name] for name in ("perPod", "perContainer") if overhead.get(name) is not None}
    if not held:
        return [invalid(path, "", "at least one of perPod or perContainer must be set")]
    return [
        invalid(f"{path}.{name}", value, "must be non-negative")
        for name, value in held.items()
        if Quantity.parse(value) < Quantity.of(0)
    ]
