"""Devices that are offered as several shares: which, and what is published of them. Pure.

A share is a part of the capacity ``shares``, one unless the request says otherwise, so ``nvidia.com/gpu: 1`` gets one.
Every other capacity of the device has a request policy too, with default 0: without one the first share would consume
all of it (KEP-5075). Names and policies are those of NVIDIA's driver with ConsumableShares=<N> (dra-driver-nvidia-gpu,
cmd/gpu-kubelet-plugin, shares).

Two attributes are ours. ``sharingStrategy`` makes a change of the strategy a change of the device, so that its holders
finish as they began. And of renamed devices ``type`` is ``gpu.shared`` or ``mig.shared``: classes that select
``gpu`` or ``mig``, also people's own, do not get them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from api.claim_config import SharingStrategy
from dra_driver.devices.mig_resources import is_memory_slice_capacity
from dra_driver.devices.model import (
    MOST_ENTRIES,
    AllocatableDevice,
    AttributeValue,
    Capacity,
    DeviceKind,
    DeviceSet,
    RequestPolicy,
)
from dra_driver.devices.naming import replica_name
from dra_driver.devices.policy import DevicePolicy
from dra_driver.devices.sharing import Replicas
from dra_driver.hardware.model import Gpu
from dra_driver.mps.limits import client_limit
from dra_driver.quantity import Quantity

SHARES: Final = "shares"
STRATEGY: Final = "sharingStrategy"
REPLICAS: Final = "replicas"

_SHARED_TYPE = ".shared"
_NONE, _ONE, _MIB = Quantity.of(0), Quantity.of(1), Quantity.binary(2**20)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a device is not shared although a rule says so; a sentence's end."""

    because: str


SharingForm = tuple[AttributeValue | None, ...]


def sharing_of(policy: DevicePolicy, node: str, gpu: Gpu, profile: str | None = None) -> Replicas | Refused | None:
    """How ``gpu``, or its MIG devices of ``profile``, are shared; None where no rule says so."""
    sharing = policy.sharing
    replicas = sharing.for_gpu(node, gpu) if profile is None else sharing.for_mig(node, gpu, profile)
    if replicas is None or replicas.strategy is not SharingStrategy.MPS:
        return replicas
    if replicas.strategy not in policy.sharing_by:
        return Refused("MPS is switched off: set feature gate MPSSupport, or share by time-slicing")
    limit = client_limit(gpu)
    if replicas.count > limit:
        return Refused(
            f"an MPS server on {gpu.architecture} takes {limit} clients, not {replicas.count}: "
            f"set replicas to {limit} at most, or share by time-slicing"
        )
    return replicas


def shared(device: AllocatableDevice, sharing: Replicas | Refused | None) -> AllocatableDevice:
    """``device`` as ``sharing`` has it offered; as it is where it is not shared."""
    if sharing is None or isinstance(sharing, Refused):
        return device
    most = 1 if sharing.one_per_request else sharing.count
    capacity = {name: _optional(name, held) for name, held in device.capacity.items()}
    capacity[SHARES] = Capacity(Quantity.of(sharing.count), RequestPolicy(_ONE, _ONE, Quantity.of(most), _ONE))
    attributes = {**device.attributes, STRATEGY: sharing.strategy.value}
    if sharing.renamed:
        attributes["type"] = f"{device.kind}{_SHARED_TYPE}"
    if len(attributes) + len(capacity) > MOST_ENTRIES:
        capacity = {name: held for name, held in capacity.items() if not is_memory_slice_capacity(name)}
    return replace(device, attributes=attributes, capacity=capacity, allow_multiple_allocations=True)


def kind_of(device_type: object) -> DeviceKind:
    """The kind that attribute ``type`` tells. Raises ValueError for none of ours."""
    return DeviceKind(str(device_type).removesuffix(_SHARED_TYPE))


def any_shared(device_set: DeviceSet) -> bool:
    return any(SHARES in device.capacity for device in device_set.devices)


def is_renamed(device: AllocatableDevice) -> bool:
    return str(device.attributes.get("type")).endswith(_SHARED_TYPE)


def replicas_of(device: AllocatableDevice) -> tuple[AllocatableDevice, ...]:
    """A shared device as devices of their own, one for each share, for a server without consumable capacity.

    Of each counter that the device draws from a replica takes its part, so that replicas fit beside each other and
    nothing else that draws from a memory slice fits beside one.
    """
    count = device.capacity[SHARES].value.value()
    capacity = {name: Capacity(held.value) for name, held in device.capacity.items() if name != SHARES}
    consumes = tuple(
        replace(use, counters={name: _part(quantity, count) for name, quantity in use.counters.items()})
        for use in device.consumes
    )
    one = replace(
        device,
        attributes={**device.attributes, REPLICAS: count},
        capacity=capacity,
        consumes=consumes,
        allow_multiple_allocations=False,
    )
    return tuple(replace(one, name=replica_name(device.name, index)) for index in range(count))


def form_of(device: AllocatableDevice) -> SharingForm:
    """What of a device's sharing its holders rely on; the same for devices that are not shared."""
    shares = device.capacity.get(SHARES)
    return (
        device.allow_multiple_allocations,
        shares.value.value() if shares else None,
        device.attributes.get(STRATEGY),
        device.attributes.get(REPLICAS),
        is_renamed(device),
    )


def _optional(name: str, held: Capacity) -> Capacity:
    """A capacity of which a share gets as much as it asks for, and nothing unasked."""
    step = _MIB if name == "memory" else _ONE
    value = Quantity(held.value.nanos - held.value.nanos % step.nanos, held.value.format)
    if not value:
        return held  # nothing to share out, and a step must not be larger than the capacity
    return Capacity(value, RequestPolicy(_NONE, _NONE, value, step))


def _part(quantity: Quantity, count: int) -> Quantity:
    return Quantity(quantity.nanos // count, quantity.format)
