"""Whether one device may serve one request: class and request selectors, capacity, use by other claims, taints.

Two ways to ask: :meth:`Eligibility.admits` in the scheduler's order, with selector errors raised (they end the pod's
scheduling), for the search; and :meth:`Eligibility.rejection` that gives the reason a person needs, for explanations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dra_driver.allocator.counters import CounterBalance, CounterCharges
from dra_driver.allocator.model import ClaimKey, Device, DeviceClass, DeviceId, DeviceRequest
from dra_driver.allocator.selectors import SelectorEngine, SelectorError
from dra_driver.allocator.taints import blocking_taint


class RejectionKind(StrEnum):
    CLASS_SELECTOR = "class selector"
    REQUEST_SELECTOR = "request selector"
    SELECTOR_ERROR = "selector error"
    CAPACITY = "capacity"
    IN_USE = "in use"
    TAINT = "taint"
    COUNTERS = "shared counters"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a device cannot serve a request; ``detail`` is the selector, the capacity or the taint, ``holders`` are the
    claims that have the device, or some of the counters that it draws from."""

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
        in_use: Mapping[DeviceId, ClaimKey],
        counters: CounterBalance,
    ) -> None:
        self.counters = counters
        self._engine = engine
        self._classes = classes
        self._in_use = in_use
        self._selected: dict[tuple[str, str, tuple[str, ...], DeviceId], bool] = {}

    def admits(self, request: DeviceRequest, device: Device) -> bool:
        """Raises :class:`SelectorFailedError`."""
        if device.id in self._in_use and not request.admin_access:
            return False
        return self.selects(request, device) and self.allows(request, device)

    def selects(self, request: DeviceRequest, device: Device) -> bool:
        """Selectors and capacity only: what an ``All`` request takes in. Raises :class:`SelectorFailedError`."""
        key = (request.name, request.class_name, request.selectors, device.id)
        if key not in self._selected:
            expressions = (*self._classes[request.class_name].selectors, *request.selectors)
            self._selected[key] = all(self._evaluate(request, device, expression) for expression in expressions)
        return self._selected[key] and not _missing_capacity(request, device)

    def allows(self, request: DeviceRequest, device: Device) -> bool:
        """Whether a selected device is free and tolerated. Shared counters are the search's to look at."""
        if request.admin_access:
            return blocking_taint(device, request.tolerations) is None
        return device.id not in self._in_use and blocking_taint(device, request.tolerations) is None

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
        if missing := _missing_capacity(request, device):
            return Rejection(RejectionKind.CAPACITY, missing)
        if not request.admin_access and device.id in self._in_use:
            return Rejection(RejectionKind.IN_USE, holders=(self._in_use[device.id],))
        if not request.admin_access and not CounterCharges(self.counters).fits(device):
            return Rejection(RejectionKind.COUNTERS, holders=self.counters.holders(device))
        taint = blocking_taint(device, request.tolerations)
        return Rejection(RejectionKind.TAINT, str(taint)) if taint else None

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


def _missing_capacity(request: DeviceRequest, device: Device) -> str:
    """A device that is given whole must have at least the capacity that the request asks for."""
    for qualified, wanted in request.capacity.items():
        domain, _, name = qualified.rpartition("/")
        offered = device.capacity.get(domain or device.id.driver, {}).get(name)
        if offered is None or offered < wanted:
            return f"{qualified} {offered if offered is not None else 'absent'}, asked {wanted}"
    return ""
