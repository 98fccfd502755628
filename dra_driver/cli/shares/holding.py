"""Who holds how much of each device, and how large a request could still be. Pure.

What a request takes, what is left and what keeps it away are the allocator's answers, on the slices as they are
published and with the claims as they are. It is asked for a pod that tolerates no taint. Taints that an administrator's
DeviceTaintRule adds are in no slice, so they are not seen. Admin access holds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from dra_driver.allocator.consumption import largest
from dra_driver.allocator.counters import CounterBalance
from dra_driver.allocator.eligibility import Eligibility, Rejection, RejectionKind
from dra_driver.allocator.model import ClaimKey, Device, DeviceClass, DeviceRequest, Holding, Taint
from dra_driver.allocator.pools import Pool
from dra_driver.allocator.selectors import Program
from dra_driver.allocator.shares import ShareBalance
from dra_driver.allocator.taints import blocking_taint
from dra_driver.cli.shares.reading import ClusterView, HolderPod
from dra_driver.devices.naming import MigName, device_behind, gpu_name, is_replica, minor_of, read_name
from dra_driver.devices.shares import REPLICAS, SHARES, STRATEGY
from dra_driver.quantity import Quantity

EXCLUSIVE = "exclusive"
NOT_TOLD = "not told"  # of another driver's devices, or an older version's

_CLASS = "asked"
_NONE, _ONE = Quantity.of(0), Quantity.of(1)
_TYPE, _UUID, _PARENT, _PRODUCT = "type", "uuid", "parentUUID", "productName"


class Why(StrEnum):
    """Why nobody else gets anything of a device."""

    FULL = "full"
    IN_USE = "inUse"  # somebody has all of it
    HARDWARE = "hardwareInUse"  # devices of the same hardware are in use, and its counters say so
    TAINT = "tainted"
    POOL = "pool"  # the scheduler uses no device of the pool
    POLICY = "policy"  # no request fits its policy


@dataclass(frozen=True, slots=True)
class Blocked:
    """``detail`` is a sentence's end; ``claims`` have what is missing."""

    why: Why
    detail: str = ""
    claims: tuple[ClaimKey, ...] = ()
    taint: Taint | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """One result of an allocation. ``id`` is empty for a device that is given as a whole."""

    id: str
    device: str
    consumes: Mapping[str, Quantity] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Holder:
    """A claim, the pods that may use it, and all that it has of one row's devices."""

    claim: ClaimKey
    pods: tuple[HolderPod, ...]
    shares: tuple[Share, ...]

    @property
    def consumes(self) -> Mapping[str, Quantity]:
        total: dict[str, Quantity] = {}
        for share in self.shares:
            for name, amount in share.consumes.items():
                total[name] = total.get(name, _NONE) + amount
        return total


@dataclass(frozen=True, slots=True)
class Use:
    """One capacity. ``largest``: what one more request could have of it; None when it could have nothing, and for what
    has no request policy, of which a share takes all."""

    name: str
    value: Quantity
    held: Quantity
    largest: Quantity | None

    @property
    def free(self) -> Quantity:
        return max(self.value - self.held, _NONE)


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """One row: a device, or all the replica devices of one. ``devices`` are the names that claims have.

    A device that is given as a whole counts as one of ``shares``, and so does each replica.
    """

    node: str
    name: str
    devices: tuple[str, ...]
    uuid: str
    gpu_uuid: str
    product: str
    shared_by: str
    uses: tuple[Use, ...]
    holders: tuple[Holder, ...]
    taints: tuple[Taint, ...]
    blocked: Blocked | None

    @property
    def is_exclusive(self) -> bool:
        return self.shared_by == EXCLUSIVE

    @property
    def is_mig(self) -> bool:
        return isinstance(read_name(self.name), MigName)

    def use(self, name: str) -> Use | None:
        return next((use for use in self.uses if use.name == name), None)


@dataclass(frozen=True, slots=True)
class NodeUse:
    """``notes`` are about what no row shows."""

    name: str
    devices: tuple[DeviceUse, ...]
    notes: tuple[str, ...] = ()


def nodes_of(view: ClusterView) -> tuple[NodeUse, ...]:
    """What is held and free on each node of ``view``, devices in the scheduler's order."""
    reader = _Reader(view)
    return tuple(reader.node(name, view.pools.get(name)) for name in view.nodes)


class _NoSelectors:
    """A ``SelectorEngine`` for requests that select nothing."""

    def compile(self, expression: str) -> Program:
        raise NotImplementedError(expression)  # neither the class nor the request has a selector


class _Reader:
    def __init__(self, view: ClusterView) -> None:
        self._view = view
        self._balance = ShareBalance(view.in_use)
        counters = CounterBalance(view.pools.values(), view.in_use)
        classes = {_CLASS: DeviceClass(_CLASS)}
        self._eligibility = Eligibility(_NoSelectors(), classes, view.in_use, counters, self._balance)

    def node(self, name: str, pool: Pool | None) -> NodeUse:
        devices = pool.devices if pool else ()
        rows = tuple(self._rows(pool) if pool else ())
        return NodeUse(name, rows, (*self._problems(name, pool), *_only_mig(devices, rows)))

    def _problems(self, node: str, pool: Pool | None) -> Iterator[str]:
        if pool and pool.problem:
            yield f"its pool is {pool.problem}; the scheduler uses none of its devices"
        elif not pool or not pool.devices:
            yield "publishes no devices"
        published = {device.id for device in pool.devices} if pool else set()
        for device, held in sorted(self._view.in_use.items()):
            if device.pool == node and device not in published:
                claims = ", ".join(sorted({str(holding.claim) for holding in held}))
                yield f"{device.device} is not published, and claims have it: {claims}"

    def _rows(self, pool: Pool) -> Iterator[DeviceUse]:
        replicas: dict[str, list[Device]] = {}
        for device in pool.devices:
            name = device.id.device
            if is_replica(name):
                replicas.setdefault(device_behind(name), []).append(device)
        for device in pool.devices:
            name = device.id.device
            if is_replica(name):
                together = replicas.pop(device_behind(name), None)
                if together:
                    yield self._replicas(pool, device_behind(name), together)
            elif device.allow_multiple_allocations:
                yield self._shared(pool, device)
            elif not isinstance(read_name(name), MigName):
                yield self._exclusive(pool, device)

    def _shared(self, pool: Pool, device: Device) -> DeviceUse:
        room, blocked = self._room(pool, device)
        whole = any(holding.consumed is None for holding in self._view.in_use.get(device.id, ()))
        uses = tuple(
            Use(name, offer.value, offer.value if whole else self._balance.consumed(device, name), room.get(name))
            for name, offer in device.offers.items()
        )
        everything = {name: offer.value for name, offer in device.offers.items()}
        return self._row(device.id.device, [device], uses, blocked, everything)

    def _exclusive(self, pool: Pool, device: Device) -> DeviceUse:
        return self._given_whole(pool, device.id.device, [device], 1)

    def _replicas(self, pool: Pool, name: str, devices: Sequence[Device]) -> DeviceUse:
        """The count that they carry goes before their number: one that is left of another way of sharing is one of as
        many as there were."""
        told = [_own(device, REPLICAS) for device in devices]
        count = max((number for number in told if isinstance(number, int)), default=len(devices))
        return self._given_whole(pool, name, devices, max(count, len(devices)))

    def _given_whole(self, pool: Pool, name: str, devices: Sequence[Device], count: int) -> DeviceUse:
        held = sum(1 for device in devices if device.id in self._view.in_use)
        free = [device for device in devices if device.id not in self._view.in_use] or devices
        answers = [self._room(pool, device)[1] for device in free]
        blocked = None if None in answers else answers[0]
        use = Use(SHARES, Quantity.of(count), Quantity.of(held), None if blocked else _ONE)
        return self._row(name, devices, (use,), blocked, {SHARES: _ONE})

    def _row(
        self,
        name: str,
        devices: Sequence[Device],
        uses: tuple[Use, ...],
        blocked: Blocked | None,
        whole: Mapping[str, Quantity],
    ) -> DeviceUse:
        first = devices[0]
        uuid = str(_own(first, _UUID) or "")
        is_shared = first.allow_multiple_allocations or is_replica(first.id.device)
        return DeviceUse(
            node=first.id.pool,
            name=name,
            devices=tuple(device.id.device for device in devices),
            uuid=uuid,
            gpu_uuid=str(_own(first, _PARENT) or uuid),
            product=str(_own(first, _PRODUCT) or ""),
            shared_by=str(_own(first, STRATEGY) or NOT_TOLD) if is_shared else EXCLUSIVE,
            uses=uses,
            holders=tuple(self._holders(devices, whole)),
            taints=tuple(dict.fromkeys(taint for device in devices for taint in device.taints)),
            blocked=blocked,
        )

    def _holders(self, devices: Iterable[Device], whole: Mapping[str, Quantity]) -> Iterator[Holder]:
        """``whole``: what somebody has who has all of a device."""
        held: dict[ClaimKey, list[Share]] = {}
        for device in devices:
            for holding in self._view.in_use.get(device.id, ()):
                held.setdefault(holding.claim, []).append(_share(device, holding, whole))
        for claim in sorted(held):
            yield Holder(claim, self._view.pods.get(claim, ()), tuple(held[claim]))

    def _room(self, pool: Pool, device: Device) -> tuple[Mapping[str, Quantity], Blocked | None]:
        """The largest request that would be admitted now, of every capacity with a request policy; or why there is
        none. One request can have the most of each at once: they do not limit each other."""
        if pool.problem:
            return {}, Blocked(Why.POOL, pool.problem)
        taint = blocking_taint(device, ())
        if taint is not None:
            return {}, Blocked(Why.TAINT, str(taint), taint=taint)
        most = {
            name: largest(offer, offer.value - self._balance.consumed(device, name))
            for name, offer in device.offers.items()
            if offer.policy is not None and device.allow_multiple_allocations
        }
        asked = {name: amount for name, amount in most.items() if amount is not None}
        rejection = self._eligibility.rejection(DeviceRequest(_CLASS, _CLASS, capacity=asked), device)
        return (asked, None) if rejection is None else ({}, _blocked(rejection))


def _blocked(rejection: Rejection) -> Blocked:
    why = {
        RejectionKind.SHARES: Why.FULL,
        RejectionKind.IN_USE: Why.IN_USE,
        RejectionKind.COUNTERS: Why.HARDWARE,
    }.get(rejection.kind, Why.POLICY)
    return Blocked(why, rejection.detail, rejection.holders)


def _share(device: Device, holding: Holding, whole: Mapping[str, Quantity]) -> Share:
    return Share(holding.share, device.id.device, whole if holding.consumed is None else holding.consumed)


def _own(device: Device, name: str) -> object:
    """An attribute in the driver's own domain."""
    return device.attribute(f"{device.id.driver}/{name}")


def _only_mig(devices: Iterable[Device], rows: Iterable[DeviceUse]) -> Iterator[str]:
    """GPUs that have no row, since nothing of them is offered but MIG devices for one claim each."""
    shown = {minor_of(row.name) for row in rows}
    names = (read_name(device.id.device) for device in devices)
    for minor in dict.fromkeys(name.minor for name in names if isinstance(name, MigName)):
        if minor not in shown:
            yield f"{gpu_name(minor)} is offered in MIG devices that are not shared; gpu-dra mig status draws them"
