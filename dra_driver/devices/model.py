"""Allocatable devices: what a node offers to the scheduler, before it is cut into ResourceSlices.

The values mirror resource.k8s.io/v1 (Device, CounterSet, DeviceTaint) but are frozen and typed; ``slices`` alone writes
API dictionaries. Mappings are treated as immutable and keep their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from dra_driver.devices.naming import minor_of
from dra_driver.quantity import Quantity

MOST_ENTRIES: Final = 32
"""Attributes and capacities of one device (ResourceSliceMaxAttributesAndCapacitiesPerDevice)."""


class DeviceKind(StrEnum):
    """The value of attribute ``type`` (NVIDIA's driver publishes the same words), but for renamed shares."""

    GPU = "gpu"
    MIG = "mig"
    VFIO = "vfio"


@dataclass(frozen=True, slots=True)
class Version:
    """A version attribute: strict SemVer 2.0.0 text such as ``580.105.8``."""

    text: str


AttributeValue = bool | int | str | Version


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """CapacityRequestPolicy with a validRange: how a share of a capacity is rounded and bounded."""

    default: Quantity
    minimum: Quantity
    maximum: Quantity
    step: Quantity


@dataclass(frozen=True, slots=True)
class Capacity:
    value: Quantity
    policy: RequestPolicy | None = None


@dataclass(frozen=True, slots=True)
class CounterSet:
    name: str
    counters: Mapping[str, Quantity]


@dataclass(frozen=True, slots=True)
class CounterConsumption:
    counter_set: str
    counters: Mapping[str, Quantity]


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str
    effect: str  # None | NoSchedule | NoExecute
    time_added: str | None = None  # RFC 3339, seconds; filled by the server when unset

    @property
    def keeps_pods_away(self) -> bool:
        """Whether pods that do not tolerate it get another device; effect None only informs."""
        return self.effect in ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True)
class AllocatableDevice:
    """One device of a pool. ``gpu_uuid`` is the physical GPU behind it (the parent, for MIG)."""

    name: str
    kind: DeviceKind
    gpu_uuid: str
    attributes: Mapping[str, AttributeValue]
    capacity: Mapping[str, Capacity]
    consumes: tuple[CounterConsumption, ...] = ()
    taints: tuple[Taint, ...] = ()
    allow_multiple_allocations: bool = False

    @property
    def board(self) -> int | str:
        """What devices of one GPU have in common: the minor number in their names, like counter sets, since another GPU
        may have come into the place of one whose devices claims still hold. The UUID for a name that is none of ours.
        """
        minor = minor_of(self.name)
        return self.gpu_uuid if minor is None else minor


@dataclass(frozen=True, slots=True)
class DeviceSet:
    """Everything one node offers: devices in published order, and the counter sets they draw from."""

    devices: tuple[AllocatableDevice, ...] = field(default=())
    counter_sets: tuple[CounterSet, ...] = field(default=())
