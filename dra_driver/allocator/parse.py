"""Reads resource.k8s.io/v1 dictionaries into the allocator's model.

The API server has validated what it stores, so only what this allocator cannot honour is refused
(:class:`UnsupportedError`); a claim that would be allocated wrongly is worse than one that is not allocated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dra_driver.allocator.model import (
    AllocationMode,
    Claim,
    ClaimKey,
    ConfigEntry,
    Constraint,
    ConstraintKind,
    DeviceClass,
    DeviceId,
    DeviceRequest,
    Holding,
    Obj,
    Request,
    Toleration,
)
from dra_driver.quantity import Quantity


class UnsupportedError(Exception):
    """The claim asks for something this allocator does not have; the message names claim, request and field."""


def claim_key(claim: Mapping[str, Any]) -> ClaimKey:
    metadata = claim["metadata"]
    return ClaimKey(metadata.get("namespace") or "default", metadata.get("name") or metadata.get("generateName", ""))


def allocation_results(claim: Mapping[str, Any]) -> Sequence[Obj]:
    """Every device that a claim was allocated, as the API has it; none while it is not allocated."""
    allocation = (claim.get("status") or {}).get("allocation") or {}
    results: Sequence[Obj] = (allocation.get("devices") or {}).get("results") or ()
    return results


def holdings(claim: Mapping[str, Any]) -> Iterator[tuple[DeviceId, Holding]]:
    """What a claim has of which device, one entry per result. Admin access has nothing; a share is told by its id."""
    key = claim_key(claim)
    for device, result in _held(claim):
        share = result.get("shareID") or ""
        yield device, Holding(key, _quantities(result.get("consumedCapacity")) if share else None, share)


def devices_held(claim: Mapping[str, Any]) -> Iterator[DeviceId]:
    """The devices that a claim has, or has shares of, each once."""
    yield from dict.fromkeys(device for device, _ in _held(claim))


def _held(claim: Mapping[str, Any]) -> Iterator[tuple[DeviceId, Obj]]:
    for result in allocation_results(claim):
        if not result.get("adminAccess"):
            yield DeviceId(result["driver"], result["pool"], result["device"]), result


def parse_claim(claim: Mapping[str, Any]) -> Claim:
    """A ResourceClaim's spec. Raises :class:`UnsupportedError`."""
    key = claim_key(claim)
    devices = (claim.get("spec") or {}).get("devices") or {}
    return Claim(
        key=key,
        requests=tuple(_request(key, request) for request in devices.get("requests") or ()),
        constraints=tuple(_constraint(key, constraint) for constraint in devices.get("constraints") or ()),
        config=tuple(_config(entry) for entry in devices.get("config") or ()),
    )


def parse_class(device_class: Mapping[str, Any]) -> DeviceClass:
    spec = device_class.get("spec") or {}
    return DeviceClass(
        name=device_class["metadata"]["name"],
        selectors=_expressions(spec.get("selectors")),
        config=tuple(dict(entry) for entry in spec.get("config") or ()),
    )


def parse_toleration(toleration: Obj) -> Toleration:
    return Toleration(
        key=toleration.get("key") or "",
        operator=toleration.get("operator") or "Equal",
        value=toleration.get("value") or "",
        effect=toleration.get("effect") or "",
        source=toleration,
    )


def _request(key: ClaimKey, request: Obj) -> Request:
    name = request["name"]
    if exactly := request.get("exactly"):
        return Request(name, (_device_request(key, name, exactly),))
    if alternatives := request.get("firstAvailable"):
        return Request(name, tuple(_device_request(key, f"{name}/{entry['name']}", entry) for entry in alternatives))
    raise UnsupportedError(f"claim {key}: request {name!r} has neither exactly nor firstAvailable")


def _device_request(key: ClaimKey, name: str, request: Obj) -> DeviceRequest:
    if request.get("derivedAttributes"):
        raise UnsupportedError(f"claim {key}: request {name!r}: derivedAttributes (alpha in 1.37) are not supported")
    mode = request.get("allocationMode") or AllocationMode.EXACT_COUNT
    if mode not in tuple(AllocationMode):
        raise UnsupportedError(f"claim {key}: request {name!r}: allocationMode {mode!r} is not ExactCount or All")
    return DeviceRequest(
        name=name,
        class_name=request["deviceClassName"],
        selectors=_expressions(request.get("selectors")),
        mode=AllocationMode(mode),
        count=int(request.get("count") or 1),
        admin_access=bool(request.get("adminAccess")),
        tolerations=tuple(parse_toleration(entry) for entry in request.get("tolerations") or ()),
        capacity=_quantities((request.get("capacity") or {}).get("requests")),
    )


def _constraint(key: ClaimKey, constraint: Obj) -> Constraint:
    for kind in ConstraintKind:
        if attribute := constraint.get(kind):
            return Constraint(kind, attribute, tuple(constraint.get("requests") or ()))
    raise UnsupportedError(f"claim {key}: a constraint has neither matchAttribute nor distinctAttribute")


def _config(entry: Obj) -> ConfigEntry:
    body = {name: value for name, value in entry.items() if name != "requests"}
    return ConfigEntry(tuple(entry.get("requests") or ()), body)


def _quantities(source: Mapping[str, Any] | None) -> dict[str, Quantity]:
    return {name: Quantity.parse(value) for name, value in (source or {}).items()}


def _expressions(selectors: Sequence[Obj] | None) -> tuple[str, ...]:
    return tuple(selector["cel"]["expression"] for selector in selectors or ())
