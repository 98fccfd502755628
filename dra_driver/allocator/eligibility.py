"""Whether one device may serve one request: class and request selectors, capacity, use by other claims, taints.

Two ways to ask: :meth:`Eligibility.takes` in the scheduler's order, with errors raised (they end the pod's
scheduling), for the search; and :meth:`Eligibility.rejection` that gives the reason a person needs, for explanations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dra_driver.allocator.charges import Charges
from dra_driver.allocator.consumption import Amounts, CapacityRequestError, Shortfall, consumption
from dra_driver.allocator.counters import CounterBalance
from dra_driver.allocator.model import ClaimKey, Device, DeviceClass, DeviceId, DeviceRequest, InUse
from dra_driver.allocator.selectors import SelectorEngine, SelectorError
from dra_driver.allocator.shares import ShareBalance
from dra_driver.allocator.taints import blocking_taint


class RejectionKind(StrEnum):
    CLASS_SELECTOR = "class selector"
    REQUEST_SELECTOR = "request selector"
    SELECTOR_ERROR = "selector error"
    CAPACITY = "capacity"
    REQUEST_POLICY = "request policy"
    IN_USE = "in use"
    TAINT = "taint"
    SHARES = "shares"
    COUNTERS = "shared counters"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a device cannot serve a request; ``detail`` is the selector, the capacity or the taint, ``holders`` are the
    claims that have the device, shares of it, or some of the counters that it draws from."""

    kind: RejectionKind
    detail: str = ""
    holders: tuple[ClaimKey, ...] = ()


class SelectorFailedError(Exception):
    """A selector failed on a device that the search reached: the scheduler gives up on the pod."""

    def __init__(self, request: DeviceRequest, device: DeviceId, expression: str, error: SelectorError) -> None:
        super().__init__(f"selector {shorten(expression)} failed on device {device}: {error}")
        self.request = request
        self.device = device
        self.expression = expression
        self.error = error


class Eligibility:
    """Answers for one set of classes and devices in use. Remembers selector verdicts; lives for one pod."""

    def __init__(
        self,
        engine: SelectorEngine,
        classes: Mapping[str, DeviceClass],
        in_use: InUse,
        counters: CounterBalance,
        shares: ShareBalance,
    ) -> None:
        self.counters = counters
        self.shares = shares
        self._engine = engine
        self._classes = classes
        self._whole = {
            device: holding.claim
            for device, holdings in in_use.items()
            for holding in holdings
            if holding.consumed is None
        }
        self._consumption: dict[tuple[DeviceRequest, DeviceId], Amounts | Shortfall] = {}
        self._selected: dict[tuple[str, str, tuple[str, ...], DeviceId], bool] = {}

    def takes(self, request: DeviceRequest, device: Device) -> Amounts | None:
        """What the request would take of the device, or None when the device may not serve it. Whether that much is
        left is the search's to look at. Raises :class:`SelectorFailedError` and :class:`CapacityRequestError`."""
        if device.id in self._whole and not request.admin_access:
            return None
        if not self._matches(request, device):
            return None
        amounts = self._consume(request, device)
        if isinstance(amounts, Shortfall) or blocking_taint(device, request.tolerations) is not None:
            return None
        return amounts

    def selects(self, request: DeviceRequest, device: Device) -> bool:
        """Selectors and capacity only, whoever has the device: what an ``All`` request takes in. Raises as
        :meth:`takes` does."""
        return self._matches(request, device) and not isinstance(self._consume(request, device), Shortfall)

    def rejection(self, request: DeviceRequest, device: Device) -> Rejection | None:
        """The first thing that keeps this device from the request, told as a person would ask: does it fit at all?"""
        sources = (
            (RejectionKind.CLASS_SELECTOR, self._classes[request.class_name].selectors),
            (RejectionKind.REQUEST_SELECTOR, request.selectors),
        )
        for kind, expressions in sources:
            for expression in expressions:
                try:
                    if not self._evaluate(request, device, expression):
                        return Rejection(kind, shorten(expression))
                except SelectorFailedError as failure:
                    return Rejection(RejectionKind.SELECTOR_ERROR, f"{shorten(expression)}: {failure.error}")
        try:
            amounts = self._consume(request, device)
        except CapacityRequestError as error:
            return Rejection(RejectionKind.CAPACITY, str(error))
        if isinstance(amounts, Shortfall):
            kind = RejectionKind.REQUEST_POLICY if amounts.by_policy else RejectionKind.CAPACITY
            return Rejection(kind, amounts.text)
        if not request.admin_access and (held := self._rejection_by_use(device, amounts)):
            return held
        taint = blocking_taint(device, request.tolerations)
        return Rejection(RejectionKind.TAINT, str(taint)) if taint else None

    def _rejection_by_use(self, device: Device, amounts: Amounts) -> Rejection | None:
        if device.id in self._whole:
            return Rejection(RejectionKind.IN_USE, holders=(self._whole[device.id],))
        if short := self.shares.short(device, amounts):
            return Rejection(RejectionKind.SHARES, short, self.shares.holders(device))
        if not Charges(self.counters, self.shares).fits(device, amounts):
            return Rejection(RejectionKind.COUNTERS, holders=self.counters.holders(device))
        return None

    def _matches(self, request: DeviceRequest, device: Device) -> bool:
        key = (request.name, request.class_name, request.selectors, device.id)
        if key not in self._selected:
            expressions = (*self._classes[request.class_name].selectors, *request.selectors)
            self._selected[key] = all(self._evaluate(request, device, expression) for expression in expressions)
        return self._selected[key]

    def _consume(self, request: DeviceRequest, device: Device) -> Amounts | Shortfall:
        key = (request, device.id)
        if key not in self._consumption:
            self._consumption[key] = consumption(request.capacity, device.offers)
        return self._consumption[key]

    def _evaluate(self, request: DeviceRequest, device: Device, expression: str) -> bool:
        try:
            return self._engine.compile(expression).evaluate(device)
        except SelectorError as error:
            raise SelectorFailedError(request, device.id, expression, error) from error


def shorten(expression: str, limit: int = 160) -> str:
    """An expression for a message: on one line, in back quotes, its middle left out when long."""
    text = " ".join(expression.split())
    if len(text) > limit:
        text = f"{text[: limit // 2]} ... {text[-limit // 2 :]}"
    return f"`{text}`"
