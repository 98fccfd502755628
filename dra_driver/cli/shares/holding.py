"""Who holds how much of each device, and how large a request could still be. Pure.

What a request takes, what is left and what keeps it away are the allocator's answers, on the slices as they are
published and with the claims as they are. It is asked for a pod that tolerates no taint. Taints that an administrator's
DeviceTaintRule adds are in no slice, so they are not seen. Admin access holds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from dra_driver.allocator.consumption import largest
from dra_driver.allocator.counters import CounterBalance
from dra_driver.allocator.eligibility import Eligibility, Rejection, RejectionKind
from dra_driver.allocator.model import ClaimKey, Device, DeviceClass, DeviceRequest
from dra_driver.allocator.pools import Pool
from dra_driver.allocator.selectors import Program
from dra_driver.allocator.shares import ShareBalance
from dra_driver.allocator.taints import blocking_taint
from dra_driver.cli.shares.fences import Fence
from dra_driver.cli.shares.reading import ClusterView
from dra_driver.cli.shares.use import (
    COUNTED,
    EXCLUSIVE,
    FRACTIONS,
    NOT_TOLD,
    Blocked,
    DeviceUse,
    Holder,
    NodeUse,
    Share,
    Use,
    Why,
)
from dra_driver.devices.naming import MigName, device_behind, gpu_name, is_replica, minor_of, read_name
from dra_driver.devices.shares import BACKEND, ENFORCED_BY, REPLICAS, SHARES, STRATEGY
from dra_driver.quantity import Quantity

_CLASS = "asked"
_ONE = Quantity.of(1)
_TYPE, _UUID, _PARENT, _PRODUCT = "type", "uuid", "parentUUID", "productName"


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
        return DeviceUse(
            node=first.id.pool,
            name=name,
            devices=tuple(device.id.device for device in devices),
            uuid=uuid,
            gpu_uuid=str(_own(first, _PARENT) or uuid),
            product=str(_own(first, _PRODUCT) or ""),
            shared_by=_shared_by(first),
            fence=_fence(first),
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
                consumes = whole if holding.consumed is None else holding.consumed
                fence = self._view.fences.get((holding.claim, device.id, holding.share))
                share = Share(holding.share, device.id.device, consumes, fence)
                held.setdefault(holding.claim, []).append(share)
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


def _shared_by(device: Device) -> str:
    if not device.allow_multiple_allocations and not is_replica(device.id.device):
        return EXCLUSIVE
    if _fence(device) is not None:
        return FRACTIONS
    strategy = _own(device, STRATEGY)
    if strategy is not None:
        return str(strategy)
    return NOT_TOLD if SHARES in device.offers or not device.allow_multiple_allocations else COUNTED


def _fence(device: Device) -> Fence | None:
    backend, enforcement = _own(device, BACKEND), _own(device, ENFORCED_BY)
    return None if backend is None else Fence(str(backend), str(enforcement or ""))


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
