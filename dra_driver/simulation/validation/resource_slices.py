"""Rules of ResourceSlice (pkg/apis/resource/validation, ValidateResourceSlice and ValidateResourceSliceUpdate).

These are the rules of Kubernetes 1.35 and later: counters and devices live in different slices.
"""

from __future__ import annotations

from dra_driver.simulation.validation import limits, names
from dra_driver.simulation.validation.cause import Cause, invalid, required
from dra_driver.simulation.validation.devices import LIST_ATTRIBUTES, validate_counters, validate_device
from dra_driver.simulation.validation.node_selectors import validate_node_selector
from dra_driver.simulation.validation.reading import Fields, each, fields, items, text
from dra_driver.simulation.validation.taints import validate_skipped_operations

_NODE_FIELDS = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
_ONE_NODE_FIELD = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"


def validate_slice_spec(spec: Fields) -> list[Cause]:
    causes = names.driver_name("spec.driver", text(spec, "driver")) + _pool(fields(spec, "pool"))
    causes += _node_fields(spec)
    if spec.get("sharedCounters") is not None and spec.get("devices") is not None:
        causes.append(invalid("spec", "", "only one of `sharedCounters` or `devices` is allowed"))
    devices = items(spec, "devices")
    per_device_nodes = spec.get("perDeviceNodeSelection") is True
    causes += each(
        devices,
        "spec.devices",
        limits.DEVICES_WITH_ADVANCED_FEATURES if any(map(_is_advanced, devices)) else limits.DEVICES,
        lambda path, device: validate_device(path, device, per_device_nodes=per_device_nodes),
        key=lambda device: text(device, "name"),
    )
    causes += each(
        items(spec, "sharedCounters"),
        "spec.sharedCounters",
        limits.COUNTER_SETS,
        _counter_set,
        key=lambda counter_set: text(counter_set, "name"),
    )
    if spec.get("partitionTypeAttribute") is not None:
        causes += _partition_type(spec, devices)
    return causes + validate_skipped_operations(spec, "spec")


def validate_slice_changes(new: Fields, old: Fields) -> list[Cause]:
    """Fields of the spec that never change."""
    causes: list[Cause] = []
    for path, holder in (("spec.pool.name", "pool"), ("spec.driver", ""), ("spec.nodeName", "")):
        name = path.rpartition(".")[2]
        before = (fields(old, holder) if holder else old).get(name)
        after = (fields(new, holder) if holder else new).get(name)
        if before != after:
            causes.append(invalid(path, after, "field is immutable"))
    return causes


def _pool(pool: Fields) -> list[Cause]:
    causes = names.pool_name("spec.pool.name", text(pool, "name"))
    count, generation = pool.get("resourceSliceCount") or 0, pool.get("generation") or 0
    if count <= 0:
        causes.append(invalid("spec.pool.resourceSliceCount", count, "must be greater than zero"))
    if generation < 0:
        causes.append(invalid("spec.pool.generation", generation, "must be greater than or equal to zero"))
    return causes


def _node_fields(spec: Fields) -> list[Cause]:
    causes: list[Cause] = []
    name, selector = spec.get("nodeName"), spec.get("nodeSelector")
    if name == "":
        causes.append(invalid("spec.nodeName", name, "must be either unset or set to a non-empty string"))
    elif name is not None:
        causes += names.dns_subdomain("spec.nodeName", name)
    if selector is not None:
        causes += validate_node_selector(selector, "spec.nodeSelector")
        terms = items(selector, "nodeSelectorTerms")
        if len(terms) != 1:
            path = "spec.nodeSelector.nodeSelectorTerms"
            causes.append(invalid(path, terms, "must have exactly one node selector term"))
    causes += [
        invalid(f"spec.{flag}", value=False, detail="must be either unset or set to true")
        for flag in ("allNodes", "perDeviceNodeSelection")
        if spec.get(flag) is False
    ]
    used = [field for field in _NODE_FIELDS if spec.get(field) not in (None, "", False)]
    if not used:
        causes.append(required("spec", _ONE_NODE_FIELD))
    elif len(used) > 1:
        shown = "{" + ", ".join(f"`{field}`" for field in used) + "}"
        causes.append(invalid("spec", shown, f"{_ONE_NODE_FIELD}, but multiple fields are set"))
    return causes


def _is_advanced(device: Fields) -> bool:
    """Taints, counters and list attributes cost the scheduler more, so fewer such devices fit in a slice."""
    return bool(
        device.get("taints")
        or device.get("consumesCounters")
        or any(
            (attribute or {}).get(name) is not None
            for attribute in fields(device, "attributes").values()
            for name in LIST_ATTRIBUTES
        )
    )


def _counter_set(path: str, counter_set: Fields) -> list[Cause]:
    name = text(counter_set, "name")
    causes = names.dns_label(f"{path}.name", name) if name else [required(f"{path}.name")]
    return causes + validate_counters(counter_set, path, limits.COUNTERS_PER_SET)


def _partition_type(spec: Fields, devices: list[Fields]) -> list[Cause]:
    """KEP-4815: the attribute by which partitions are summed up in the pool status."""
    name, path = spec["partitionTypeAttribute"], "spec.partitionTypeAttribute"
    if malformed := names.fully_qualified_name(path, name):
        return malformed
    consumers = [(index, device) for index, device in enumerate(devices) if device.get("consumesCounters")]
    if not consumers:
        return [invalid(path, name, "may only be set on a slice which declares devices that consume counters")]
    causes: list[Cause] = []
    bare = name.removeprefix(f"{text(spec, 'driver')}/")
    for index, device in consumers:
        attributes = fields(device, "attributes")
        attribute = attributes.get(name) or attributes.get(bare)
        attribute_path = f"spec.devices[{index}].attributes[{name}]"
        if not attribute:
            causes.append(required(attribute_path, "`partitionTypeAttribute` names this attribute, so it must be set"))
        elif attribute.get("string") is None:
            causes.append(invalid(attribute_path, attribute, "must be a string value"))
    return causes
