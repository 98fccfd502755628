"""Rules of a claim's status (pkg/apis/resource/validation, ValidateResourceClaimStatusUpdate).

An allocation is written once and then stays until it is cleared; consumers come only with an allocation; device
statuses only for allocated devices.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from dra_driver.simulation.validation import kinds, limits, names, shapes
from dra_driver.simulation.validation.cause import (
    Cause,
    forbidden,
    invalid,
    not_supported,
    required,
    too_long,
    too_many,
)
from dra_driver.simulation.validation.claim_specs import (
    ADMIN_ACCESS_LABEL,
    admin_access_forbidden,
    request_names,
    validate_json_object,
    validate_opaque,
    validate_request_reference,
    validate_request_references,
)
from dra_driver.simulation.validation.node_selectors import validate_node_selector
from dra_driver.simulation.validation.reading import Fields, duplicates, each, fields, items, strings, text
from dra_driver.simulation.validation.taints import (
    validate_binding_conditions,
    validate_skipped_operations,
    validate_tolerations,
)

_CONDITION_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", re.ASCII)
_CONDITION_STATES = ("False", "True", "Unknown")
DeviceKey = tuple[str, str, str, str]


def validate_status_update(new: Fields, old: Fields, namespace_labels: Mapping[str, str] | None) -> list[Cause]:
    """``new`` and ``old`` are whole claims."""
    status, old_status = fields(new, "status"), fields(old, "status")
    allocation, old_allocation = status.get("allocation"), old_status.get("allocation")
    consumers = items(status, "reservedFor")
    causes = each(
        consumers,
        "status.reservedFor",
        limits.CONSUMERS,
        _consumer,
        key=lambda consumer: text(consumer, "uid"),
    )
    if consumers and allocation is None:
        causes.append(forbidden("status.reservedFor", "may not be specified when `allocated` is not set"))
    elif consumers and fields(new, "metadata").get("deletionTimestamp"):
        earlier = items(old_status, "reservedFor")
        if any(consumer not in earlier for consumer in consumers):
            detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
            causes.append(forbidden("status.reservedFor", detail))
    allocated = {device_key(result) for result in _results(allocation)}
    devices = items(status, "devices")
    causes += each(devices, "status.devices", None, lambda path, device: _device(device, path, allocated))
    causes += duplicates(devices, "status.devices", device_key)
    if allocation is not None and old_allocation is not None:
        if not shapes.same(kinds.ALLOCATION, allocation, old_allocation):
            causes.append(invalid("status.allocation", allocation, "field is immutable"))
    elif allocation is not None:
        causes += _allocation(allocation, request_names(fields(new, "spec")))
        causes += _admin_access(_results(allocation), namespace_labels)
    return causes


def device_key(result: Fields) -> DeviceKey:
    return text(result, "driver"), text(result, "pool"), text(result, "device"), text(result, "shareID")


def _results(allocation: Fields | None) -> list[Fields]:
    return items(fields(allocation or {}, "devices"), "results")


def _consumer(path: str, consumer: Fields) -> list[Cause]:
    return [required(f"{path}.{name}") for name in ("resource", "name", "uid") if not consumer.get(name)]


def _allocation(allocation: Fields, known: frozenset[str]) -> list[Cause]:
    path = "status.allocation.devices"
    devices = fields(allocation, "devices")
    causes = each(
        items(devices, "results"),
        f"{path}.results",
        limits.RESULTS,
        lambda item_path, result: _result(result, item_path, known),
    )

    def config(item_path: str, item: Fields) -> list[Cause]:
        source = text(item, "source")
        found: list[Cause] = []
        if not source:
            found.append(required(f"{item_path}.source"))
        elif source not in ("FromClaim", "FromClass"):
            found.append(not_supported(f"{item_path}.source", source, ("FromClaim", "FromClass")))
        return found + validate_request_references(item, item_path, known) + validate_opaque(item, item_path)

    causes += each(items(devices, "config"), f"{path}.config", 2 * limits.CONFIGS, config)
    if allocation.get("nodeSelector") is not None:
        causes += validate_node_selector(allocation["nodeSelector"], "status.allocation.nodeSelector")
    return causes


def _result(result: Fields, path: str, known: frozenset[str]) -> list[Cause]:
    causes = validate_request_reference(f"{path}.request", text(result, "request"), known)
    causes += _device_name(result, path)
    causes += validate_binding_conditions(result, path)
    causes += validate_tolerations(result, path)
    return causes + validate_skipped_operations(result, path)


def _device_name(holder: Fields, path: str) -> list[Cause]:
    causes = names.driver_name(f"{path}.driver", text(holder, "driver"))
    causes += names.pool_name(f"{path}.pool", text(holder, "pool"))
    causes += names.dns_label(f"{path}.device", text(holder, "device"))
    if holder.get("shareID") is not None:
        causes += names.share_id(f"{path}.shareID", holder["shareID"])
    return causes


def _admin_access(results: list[Fields], namespace_labels: Mapping[str, str] | None) -> list[Cause]:
    if (namespace_labels or {}).get(ADMIN_ACCESS_LABEL) == "true":
        return []
    for index, result in enumerate(results):
        if result.get("adminAccess"):
            return [admin_access_forbidden(f"status.allocation.devices.results[{index}].adminAccess")]
    return []


def _device(device: Fields, path: str, allocated: set[DeviceKey]) -> list[Cause]:
    causes = _device_name(device, path)
    if device_key(device) not in allocated:
        causes.append(
            invalid(path, "/".join(filter(None, device_key(device))), "must be an allocated device in the claim")
        )
    conditions = items(device, "conditions")
    if len(conditions) > limits.DEVICE_CONDITIONS:
        causes.append(too_many(f"{path}.conditions", len(conditions), limits.DEVICE_CONDITIONS))
    causes += each(conditions, f"{path}.conditions", None, _condition, key=lambda condition: text(condition, "type"))
    if device.get("data") is not None:
        causes += validate_json_object(device["data"], f"{path}.data")
    if device.get("networkData") is not None:
        causes += _network_data(device["networkData"], f"{path}.networkData")
    return causes


def _condition(path: str, condition: Fields) -> list[Cause]:
    """metav1.Condition (apimachinery: pkg/apis/meta/v1/validation, ValidateCondition)."""
    state, reason = text(condition, "status"), text(condition, "reason")
    kind = text(condition, "type")
    causes = names.label_key(f"{path}.type", kind) if kind else [required(f"{path}.type", "is required")]
    if state not in _CONDITION_STATES:
        causes.append(not_supported(f"{path}.status", state, _CONDITION_STATES))
    if not condition.get("lastTransitionTime"):
        causes.append(required(f"{path}.lastTransitionTime"))
    if not reason:
        causes.append(required(f"{path}.reason"))
    elif not _CONDITION_REASON.fullmatch(reason):
        causes.append(invalid(f"{path}.reason", reason, "must be a CamelCase word"))
    if len(text(condition, "message")) > 32 * 1024:
        causes.append(too_long(f"{path}.message", 32 * 1024))
    return causes


def _network_data(data: Fields, path: str) -> list[Cause]:
    causes: list[Cause] = []
    for name, limit in (
        ("interfaceName", limits.INTERFACE_NAME_BYTES),
        ("hardwareAddress", limits.HARDWARE_ADDRESS_BYTES),
    ):
        if len(text(data, name).encode()) > limit:
            causes.append(too_long(f"{path}.{name}", limit))
    return causes + each(strings(data, "ips"), f"{path}.ips", limits.INTERFACE_ADDRESSES, _address, key=str)


def _address(path: str, address: str) -> list[Cause]:
    try:
        ipaddress.ip_interface(address)
    except ValueError:
        return [invalid(path, address, "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)")]
    return [] if "/" in address else [invalid(path, address, "must be in CIDR form with a prefix length")]
