"""What ``status.devices`` of a claim says of its fractions: how each is fenced, by which limits, since when. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from api.fractions import ENFORCEMENT, Enforcement
from dra_driver.kube.interface import Obj
from dra_driver.text import shortened
from kubelet_plugin.claims.entry import ClaimEntry, HeldDevice
from kubelet_plugin.kinds.fence.step import FenceShare, fences_in

ENFORCED: Final = "Enforced"
"""Type of the condition."""

GONE: Final = "FenceGone"
"""Its reason where the fence has gone, and that of the Event about it."""


class Troubles(Protocol):
    """Why a prepared device cannot be used as it should, in a sentence; empty for one that can."""

    def __call__(self, device: HeldDevice, entry: ClaimEntry, /) -> str: ...


@dataclass(frozen=True, slots=True)
class FenceState:
    """What is to stand in the status of one share. ``message``: of a fence that has gone, else of what it is."""

    fence: FenceShare
    pool: str
    status: str
    reason: str
    message: str


def fence_states(entry: ClaimEntry, trouble: Troubles) -> tuple[FenceState, ...]:
    """Of a prepared claim; none for one without fractions. Raises ValueError for a damaged record."""
    # Of several the first, which is the strongest.
    fences: dict[tuple[str, str | None], FenceShare] = {
        (fence.device, fence.share_id): fence for fence in reversed(fences_in(entry.steps))
    }
    return tuple(_states(entry, fences, trouble))


def _states(
    entry: ClaimEntry, fences: Mapping[tuple[str, str | None], FenceShare], trouble: Troubles
) -> Iterator[FenceState]:
    for held in entry.devices:
        fence = fences.get((held.prepared.device_name, held.prepared.share_id))
        if fence is None:
            continue
        pool, gone = held.prepared.pool_name, trouble(held, entry)
        if gone:
            yield FenceState(fence, pool, "False", GONE, shortened(gone))
        elif ENFORCEMENT[fence.backend] is Enforcement.NONE:
            yield FenceState(fence, pool, "False", "NotFenced", "the claim accepts that nothing holds it to its share")
        else:
            yield FenceState(fence, pool, "True", f"By{fence.backend}", _limits(fence))


def _limits(fence: FenceShare) -> str:
    compute = f"{fence.compute} percent of the multiprocessors" if fence.compute else "no ceiling of compute"
    memory = f"{fence.memory >> 20}Mi of memory"
    if fence.memory_limit > fence.memory:
        memory += f", up to {fence.memory_limit >> 20}Mi while others leave it"
    return f"{memory}, {compute}"


def status_devices(states: tuple[FenceState, ...], driver: str, before: list[Obj], now: str) -> list[Obj]:
    """``status.devices`` to apply. ``before``: what stands there, whose times stay where nothing has changed. Pure."""
    known = {
        (each.get("device"), each.get("shareID")): condition
        for each in before
        if each.get("driver") == driver
        for condition in each.get("conditions") or ()
        if condition.get("type") == ENFORCED
    }
    return [_status(state, driver, known.get((state.fence.device, state.fence.share_id)), now) for state in states]


def _status(state: FenceState, driver: str, known: Obj | None, now: str) -> Obj:
    fence = state.fence
    since = known["lastTransitionTime"] if known is not None and known.get("status") == state.status else now
    data: dict[str, Any] = {
        "backend": fence.backend.value,
        "enforcement": ENFORCEMENT[fence.backend].value,
        "memoryBytes": fence.memory,
        "computePercent": fence.compute,
    }
    if fence.memory_limit != fence.memory:
        data["memoryLimitBytes"] = fence.memory_limit
    condition = {
        "type": ENFORCED,
        "status": state.status,
        "reason": state.reason,
        "message": state.message,
        "lastTransitionTime": since,
    }
    return {
        "driver": driver,
        "pool": state.pool,
        "device": fence.device,
        "shareID": fence.share_id,
        "conditions": [condition],
        "data": data,
    }
