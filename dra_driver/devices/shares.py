"""Devices that are offered as several shares: which, and what is published of them. Pure.

Replicas are parts of the capacity ``shares``, one unless the request says otherwise, so ``nvidia.com/gpu: 1`` gets one.
A fraction is a part of ``memory`` and of ``compute`` (percent): whoever asks for nothing gets all of the memory, and so
the whole device, and no ceiling of compute. Every other capacity of a shareable device has a request policy too, with
default 0: without one the first share would consume all of it (KEP-5075). Names and policies of ``shares`` and
``memory`` are those of NVIDIA's driver with ConsumableShares (dra-driver-nvidia-gpu, cmd/gpu-kubelet-plugin,
consumable_shares.go).

Attributes are ours. ``sharingStrategy`` makes a change of the strategy a change of the device, so that its holders
finish as they began. ``sharingBackend`` and ``sharingEnforcement`` tell what fences fractions (``api.fractions``).
And of renamed devices ``type`` is ``gpu.shared`` or ``mig.shared``: classes that select ``gpu`` or ``mig``, also
people's own, do not get them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from api.claim_config import SharingStrategy
from api.fractions import ENFORCEMENT
from dra_driver.devices.fences import Fencing
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
from dra_driver.devices.sharing import Counted, Fractions, Replicas, Sharing
from dra_driver.hardware.model import Gpu
from dra_driver.mps.limits import client_limit
from dra_driver.quantity import Quantity

SHARES: Final = "shares"
MEMORY: Final = "memory"
COMPUTE: Final = "compute"
BACKEND: Final = "sharingBackend"
ENFORCED_BY: Final = "sharingEnforcement"
STRATEGY: Final = "sharingStrategy"
REPLICAS: Final = "replicas"

_SHARED_TYPE = ".shared"
_NONE, _ONE, _MIB = Quantity.of(0), Quantity.of(1), Quantity.binary(2**20)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a device is not shared although a rule says so; a sentence's end."""

    because: str


SharingForm = tuple[AttributeValue | None, ...]


def sharing_of(policy: DevicePolicy, node: str, gpu: Gpu, profile: str | None = None) -> Sharing | Refused | None:
    """How ``gpu``, or its MIG devices of ``profile``, are shared; None where no rule says so."""
    sharing = policy.sharing.for_gpu(node, gpu) if profile is None else policy.sharing.for_mig(node, gpu, profile)
    if isinstance(sharing, Fractions) and profile is None and gpu.memory_bytes is None:
        return Refused("it has no memory of its own to divide, since it shares the host's: offer replicas of it")
    if not isinstance(sharing, Replicas) or sharing.strategy is not SharingStrategy.MPS:
        return sharing
    if sharing.strategy not in policy.sharing_by:
        return Refused("MPS is switched off: set feature gate MPSSupport, or share by time-slicing")
    limit = client_limit(gpu)
    if sharing.count > limit:
        return Refused(
            f"an MPS server on {gpu.architecture} takes {limit} clients, not {sharing.count}: "
            f"set replicas to {limit} at most, or share by time-slicing"
        )
    return sharing


def shared(
    device: AllocatableDevice, sharing: Sharing | Refused | None, fencing: Fencing | None = None
) -> AllocatableDevice:
    """``device`` as ``sharing`` has it offered; as it is where it is not shared. ``fencing``: of its fractions."""
    match sharing:
        case Replicas():
            return _in_replicas(device, sharing)
        case Fractions():
            return _in_fractions(device, sharing, fencing or Fencing())
        case Counted():
            memory = _divided(device.capacity.get(MEMORY), _MIB.value()) if sharing.memory else None
            return _shareable(device, {}, {} if memory is None else {MEMORY: memory})
        case Refused() | None:
            return device


def _in_replicas(device: AllocatableDevice, sharing: Replicas) -> AllocatableDevice:
    most = 1 if sharing.one_per_request else sharing.count
    shares = Capacity(Quantity.of(sharing.count), RequestPolicy(_ONE, _ONE, Quantity.of(most), _ONE))
    attributes: dict[str, AttributeValue] = {STRATEGY: sharing.strategy.value}
    if sharing.renamed:
        attributes["type"] = f"{device.kind}{_SHARED_TYPE}"
    return _shareable(device, attributes, {SHARES: shares})


def _in_fractions(device: AllocatableDevice, sharing: Fractions, fencing: Fencing) -> AllocatableDevice:
    """Whole, as long as nobody knows what of its memory there is to have, or where that is less than a step."""
    if fencing.reserve is None:
        return device
    memory = _divided(device.capacity.get(MEMORY), sharing.memory_step, fencing.reserve)
    if memory is None:
        return device
    attributes = {BACKEND: fencing.backend.value, ENFORCED_BY: ENFORCEMENT[fencing.backend].value}
    return _shareable(device, attributes, {MEMORY: memory, COMPUTE: _compute(sharing.compute_step)})


def _shareable(
    device: AllocatableDevice, attributes: Mapping[str, AttributeValue], capacity: Mapping[str, Capacity]
) -> AllocatableDevice:
    attributes = {**device.attributes, **attributes}
    capacity = {**{name: _optional(name, held) for name, held in device.capacity.items()}, **capacity}
    if len(attributes) + len(capacity) > MOST_ENTRIES:
        capacity = {name: held for name, held in capacity.items() if not is_memory_slice_capacity(name)}
    return replace(device, attributes=attributes, capacity=capacity, allow_multiple_allocations=True)


def kind_of(device_type: object) -> DeviceKind:
    """The kind that attribute ``type`` tells. Raises ValueError for none of ours."""
    return DeviceKind(str(device_type).removesuffix(_SHARED_TYPE))


def any_shared(device_set: DeviceSet) -> bool:
    return any(device.allow_multiple_allocations for device in device_set.devices)


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
        device.attributes.get(BACKEND),
    )


def _optional(name: str, held: Capacity) -> Capacity:
    """A capacity of which a share gets as much as it asks for, and nothing unasked."""
    step = _MIB if name == "memory" else _ONE
    value = Quantity(held.value.nanos - held.value.nanos % step.nanos, held.value.format)
    if not value:
        return held  # nothing to share out, and a step must not be larger than the capacity
    return Capacity(value, RequestPolicy(_NONE, _NONE, value, step))


def usable_memory(memory: int, step: int, reserve: int) -> int:
    """What of a device's ``memory`` is offered in fractions; all in bytes."""
    usable = max(0, memory - reserve)
    return usable - usable % step


def _divided(held: Capacity | None, step: int, reserve: int = 0) -> Capacity | None:
    """A capacity in bytes of which a share gets what it asks for and, unasked, all; None where not a step is left."""
    memory = 0 if held is None else held.value.value()
    value, one = Quantity.binary(usable_memory(memory, step, reserve)), Quantity.binary(step)
    return Capacity(value, RequestPolicy(value, one, value, one)) if value >= one else None


def _compute(step: int) -> Capacity:
    most = Quantity.of(100 - 100 % step)
    return Capacity(most, RequestPolicy(_NONE, _NONE, most, Quantity.of(step)))


def _part(quantity: Quantity, count: int) -> Quantity:
    return Quantity(quantity.nanos // count, quantity.format)
