"""Plays a trace against a policy: either a claim that does not fit is refused, or it waits.

Waiting is kube-scheduler's: the oldest first, but a pod that does not fit does not hold up those behind it. Only the GPU
on which something ended can have become fit for anyone, so only that one is looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heappop, heappush

from tests.bench.packing.policies import Policy
from tests.bench.packing.products import Product
from tests.bench.packing.traces import Arrival

_WARM_UP = 0.1  # of the trace: the node fills from empty


@dataclass(slots=True)
class Outcome:
    """Of the part of a trace after the warm-up. Waits are in hours, those that go on at the end counted up to there."""

    work: float = 0.0  # compute slices x hours that ran
    waits: dict[int, list[float]] = field(default_factory=dict)  # by kind
    large: int = 0  # claims for large kinds
    blocked: int = 0  # of those, not served at once although enough compute slices were free on the node in total


class Unfit(StrEnum):
    """What becomes of a claim that does not fit."""

    REFUSED = "refused"
    WAITS = "waits"


def play(product: Product, trace: Sequence[Arrival], policy: Policy, *, gpus: int, unfit: Unfit) -> Outcome:
    return _Run(product, trace, policy, gpus, _Queue(len(product.kinds)) if unfit is Unfit.WAITS else None).run()


class _Queue:
    """Claims that wait, by kind; the oldest of a kind first."""

    def __init__(self, kinds: int) -> None:
        self.waiting: list[deque[Arrival]] = [deque() for _ in range(kinds)]

    def by_age(self) -> list[tuple[float, int]]:
        return sorted((line[0].at, kind) for kind, line in enumerate(self.waiting) if line)


class _Run:
    def __init__(
        self, product: Product, trace: Sequence[Arrival], policy: Policy, gpus: int, queue: _Queue | None
    ) -> None:
        self._product = product
        self._trace = trace
        self._policy = policy
        self._queue = queue
        self._held = [0] * gpus
        self._free = gpus * product.slices
        self._ends: list[tuple[float, int, int]] = []  # when, GPU, device
        self._last = trace[-1].at
        self._warm = self._last * _WARM_UP
        self._outcome = Outcome()
        self._slices = [device.slices for device in product.devices]
        self._wanted = [product.slices_of(kind) for kind in range(len(product.kinds))]
        self._large = [product.is_large(kind) for kind in range(len(product.kinds))]

    def run(self) -> Outcome:
        for arrival in self._trace:
            self._end_until(arrival.at)
            self._arrive(arrival)
        if self._queue is not None:
            for line in self._queue.waiting:
                for arrival in line:
                    self._note_wait(arrival, self._last)
        return self._outcome

    def _arrive(self, arrival: Arrival) -> None:
        gpu, device = self._policy.choose(self._held, arrival.kind, arrival.at)
        if self._large[arrival.kind] and arrival.at >= self._warm:
            self._outcome.large += 1
            self._outcome.blocked += device < 0 and self._free >= self._wanted[arrival.kind]
        if device >= 0:
            self._start(arrival, gpu, device, arrival.at)
        elif self._queue is not None:
            self._queue.waiting[arrival.kind].append(arrival)

    def _end_until(self, now: float) -> None:
        ends = self._ends
        while ends and ends[0][0] <= now:
            at, gpu, device = heappop(ends)
            self._held[gpu] ^= 1 << device
            self._free += self._slices[device]
            self._policy.changed(gpu, self._held[gpu], at)
            if self._queue is not None:
                self._serve(self._queue, gpu, at)

    def _serve(self, queue: _Queue, gpu: int, now: float) -> None:
        served = True
        while served:
            served = False
            for _, kind in queue.by_age():
                device = self._policy.choose_on(gpu, self._held[gpu], kind, now)
                if device >= 0:
                    self._start(queue.waiting[kind].popleft(), gpu, device, now)
                    served = True
                    break

    def _start(self, arrival: Arrival, gpu: int, device: int, now: float) -> None:
        end = now + arrival.lifetime
        self._held[gpu] |= 1 << device
        self._free -= self._slices[device]
        self._policy.changed(gpu, self._held[gpu], now)
        heappush(self._ends, (end, gpu, device))
        ran = min(end, self._last) - max(now, self._warm)
        if ran > 0:
            self._outcome.work += ran * self._slices[device]
        if self._queue is not None:
            self._note_wait(arrival, now)

    def _note_wait(self, arrival: Arrival, until: float) -> None:
        if arrival.at >= self._warm:
            self._outcome.waits.setdefault(arrival.kind, []).append(until - arrival.at)
