"""What a request takes of each capacity of a device, as the device's request policies say (KEP-5075). Pure arithmetic.

Rules (k8s.io/dynamic-resource-allocation/structured, consumable_capacity.go): a capacity that is not asked for costs
its policy's default or, without one, all of it. What is asked for is rounded up, to the smallest valid value or to
``min`` plus whole steps, and may not go above the largest valid value or ``max``. Names are compared as published:
``memory`` and ``gpu.nvidia.com/memory`` are two. A device that is not shared keeps the same rules; whoever gets it
gets the whole, so for it they only say whether it is large enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dra_driver.allocator.model import Offer, RequestPolicy, ValidRange
from dra_driver.quantity import Quantity

Amounts = Mapping[str, Quantity]
"""Of each capacity of a device, by its published name."""

_MOST = Quantity.of(2**63 - 1)  # steps are counted in int64


class CapacityRequestError(Exception):
    """The request cannot be computed with; the real scheduler gives up on the pod rather than try other devices."""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why a device could not serve a request even if nobody else had any of it."""

    text: str
    by_policy: bool = False


def consumption(asked: Amounts, offers: Mapping[str, Offer]) -> Amounts | Shortfall:
    """What the request takes of every capacity that is offered. Raises :class:`CapacityRequestError`, and that before
    any shortfall is told, so that the order of capacities does not matter."""
    for name, wanted in asked.items():
        if name not in offers:
            return Shortfall(f"{name} absent, asked {wanted}")
    amounts = {name: _amount(name, asked.get(name), offer) for name, offer in offers.items()}
    for name, amount in amounts.items():
        value, policy = offers[name].value, offers[name].policy
        if policy is not None and _breaks(policy, amount):
            wanted = asked.get(name, amount)
            return Shortfall(f"asked {name} {wanted}, at most {_largest(policy)} per request", by_policy=True)
        if amount > value:
            return Shortfall(f"{name} {value}, asked {amount}")
    return amounts


def largest(offer: Offer, left: Quantity) -> Quantity | None:
    """The most that a request can ask for, and get, while ``left`` is there; None when its least is more than that."""
    most, policy = min(left, offer.value), offer.policy
    if most < Quantity.of(0):
        return None
    if policy is None:
        return most
    if policy.valid_range is not None:
        return _last_step(most, policy.valid_range)
    if policy.valid_values:
        return max((value for value in policy.valid_values if value <= most), default=None)
    return most


def _last_step(most: Quantity, valid: ValidRange) -> Quantity | None:
    if valid.maximum is not None:
        most = min(most, valid.maximum)
    if most < valid.minimum:
        return None
    if valid.step is None:
        return most
    steps = (most.nanos - valid.minimum.nanos) // valid.step.nanos
    return Quantity(valid.minimum.nanos + steps * valid.step.nanos, most.format)


def _amount(name: str, wanted: Quantity | None, offer: Offer) -> Quantity:
    amount = _default(offer) if wanted is None else _round_up(name, wanted, offer.policy)
    if amount < Quantity.of(0):
        raise CapacityRequestError(f"capacity {name}: {amount} is negative")
    return amount


def _default(offer: Offer) -> Quantity:
    return offer.policy.default if offer.policy and offer.policy.default is not None else offer.value


def _round_up(name: str, wanted: Quantity, policy: RequestPolicy | None) -> Quantity:
    if policy is None:
        return wanted
    if policy.valid_range is not None:
        return _round_up_to_step(name, wanted, policy.valid_range)
    return next((value for value in policy.valid_values if wanted <= value), wanted)


def _round_up_to_step(name: str, wanted: Quantity, valid: ValidRange) -> Quantity:
    if wanted < valid.minimum:
        return valid.minimum
    if valid.step is None:
        return wanted
    steps = -(-(wanted.nanos - valid.minimum.nanos) // valid.step.nanos)
    rounded = Quantity(valid.minimum.nanos + steps * valid.step.nanos, valid.step.format)
    if rounded > _MOST:
        raise CapacityRequestError(f"capacity {name}: {wanted} in steps of {valid.step} goes beyond {_MOST}")
    return rounded


def _breaks(policy: RequestPolicy, amount: Quantity) -> bool:
    if amount == policy.default:
        return False
    if policy.valid_range is not None:
        return policy.valid_range.maximum is not None and amount > policy.valid_range.maximum
    return bool(policy.valid_values) and amount not in policy.valid_values


def _largest(policy: RequestPolicy) -> Quantity | None:
    return policy.valid_range.maximum if policy.valid_range is not None else max(policy.valid_values)
