"""The allocator's vocabulary: devices of a pool, what a claim asks for, what it is given. Frozen values, no behaviour.

Names follow resource.k8s.io/v1. Mappings are treated as immutable. Relies on quantities only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dra_driver.quantity import Quantity

Obj = dict[str, Any]

MAX_DEVICES_PER_CLAIM = 32  # resource.k8s.io AllocationResultsMaxSize


@dataclass(frozen=True, slots=True, order=True)
class DeviceId:
    """What a claim remembers of a device: names only, so a name must never move to another physical device."""

    driver: str
    pool: str
    device: str

    def __str__(self) -> str:
        return f"{self.driver}/{self.pool}/{self.device}"


@dataclass(frozen=True, slots=True, order=True)
class ClaimKey:
    """A claim as people name it."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Version:
    """A version attribute, as text."""

    text: str


ScalarValue = bool | int | str | Version
AttributeValue = ScalarValue | tuple[ScalarValue, ...]  # a list attribute is alpha (DRAListTypeAttributes)


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str
    effect: str  # None | NoSchedule | NoExecute

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True, slots=True)
class Toleration:
    """``source`` is the API object, copied into the allocation result as it is."""

    key: str
    operator: str  # Exists | Equal
    value: str
    effect: str  # empty: every effect
    source: Obj = field(hash=False, compare=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeScope:
    """Where a device can be used: one node, the nodes of a selector, or (both unset) every node."""

    node_name: str | None = None
    selector: Obj | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class CounterUse:
    """What a device takes of one counter set of its pool."""

    counter_set: str
    counters: Mapping[str, Quantity] = field(hash=False)


@dataclass(frozen=True, slots=True)
class ValidRange:
    """From ``minimum``, in whole steps where there are any, to ``maximum``."""

    minimum: Quantity
    maximum: Quantity | None = None
    step: Quantity | None = None


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """How much of a capacity one request may take (KEP-5075). At most one of values and range is set."""

    default: Quantity | None = None
    valid_values: tuple[Quantity, ...] = ()  # ascending
    valid_range: ValidRange | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """How much of one capacity a device has, and in which amounts it is given."""

    value: Quantity
    policy: RequestPolicy | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Device:
    """One published device. Attributes and capacities are ``domain -> id -> value``; a bare published name stands under
    the driver's domain. ``offers`` are the capacities once more, by the name that was published."""

    id: DeviceId
    attributes: Mapping[str, Mapping[str, AttributeValue]]
    capacity: Mapping[str, Mapping[str, Quantity]]
    scope: NodeScope
    taints: tuple[Taint, ...] = ()
    allow_multiple_allocations: bool = False
    consumes: tuple[CounterUse, ...] = ()
    offers: Mapping[str, Offer] = field(default_factory=dict)

    def attribute(self, qualified_name: str) -> AttributeValue | None:
        """``domain/id``; None when the device does not carry it."""
        domain, _, name = qualified_name.rpartition("/")
        return self.attributes.get(domain, {}).get(name)


@dataclass(frozen=True, slots=True)
class Holding:
    """What an allocated claim has of a device: ``consumed`` of it, or the whole device when that is None. ``share`` is
    the id of the share, which tells two of one claim apart."""

    claim: ClaimKey
    consumed: Mapping[str, Quantity] | None = field(default=None, hash=False)
    share: str = field(default="", compare=False)


InUse = Mapping[DeviceId, tuple[Holding, ...]]
"""The devices that claims have, and who has what of each."""


class AllocationMode(StrEnum):
    EXACT_COUNT = "ExactCount"
    ALL = "All"


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """One way to satisfy a request: the request itself (``exactly``) or one of its alternatives.

    ``name`` is what results carry: ``gpu``, or ``gpu/big`` for an alternative.
    """

    name: str
    class_name: str
    selectors: tuple[str, ...] = ()
    mode: AllocationMode = AllocationMode.EXACT_COUNT
    count: int = 1
    admin_access: bool = False
    tolerations: tuple[Toleration, ...] = ()
    capacity: Mapping[str, Quantity] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Request:
    """A request and its alternatives in order of preference; a plain request has one."""

    name: str
    alternatives: tuple[DeviceRequest, ...]


class ConstraintKind(StrEnum):
    MATCH = "matchAttribute"
    DISTINCT = "distinctAttribute"


@dataclass(frozen=True, slots=True)
class Constraint:
    """``requests`` names requests or ``request/alternative``; empty means all."""

    kind: ConstraintKind
    attribute: str
    requests: tuple[str, ...] = ()

    def applies_to(self, request_name: str) -> bool:
        parent = request_name.partition("/")[0]
        return not self.requests or request_name in self.requests or parent in self.requests

    def __str__(self) -> str:
        return f"{self.kind} {self.attribute}"


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One entry of ``spec.devices.config`` of a claim: ``body`` is everything but ``requests``."""

    requests: tuple[str, ...]
    body: Obj = field(hash=False)


@dataclass(frozen=True, slots=True)
class Claim:
    key: ClaimKey
    requests: tuple[Request, ...]
    constraints: tuple[Constraint, ...] = ()
    config: tuple[ConfigEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceClass:
    name: str
    selectors: tuple[str, ...] = ()
    config: tuple[Obj, ...] = field(default=(), hash=False)


@dataclass(frozen=True, slots=True)
class DeviceResult:
    """One allocated device, for the alternative that was chosen; a share of it where it allows multiple allocations.
    ``consumed`` is what a share takes of each of its capacities."""

    request: DeviceRequest
    device: Device
    consumed: Mapping[str, Quantity] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class AllocationResult:
    """What one claim is given on one node. ``choices`` holds, per request, the index of the chosen alternative."""

    claim: Claim
    results: tuple[DeviceResult, ...]
    choices: tuple[int, ...]
    classes: Mapping[str, DeviceClass] = field(hash=False, default_factory=dict)
