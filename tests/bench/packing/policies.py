"""Who gets which device: the scheduler's first fit in a published order, and what a better informed one would do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from heapq import merge
from typing import Protocol

from tests.bench.packing.occupancy import Loss, Occupancy
from tests.bench.packing.products import Order, by_kind

NOWHERE = -1
DELAY = 1 / 3600  # hours from a change to the slice that follows from it, when nothing holds it up
INTERVAL = 30 / 3600  # hours between two writes of one slice


class Policy(Protocol):
    """``gpus`` are the states of the node's GPUs, ``now`` is in hours."""

    def choose(self, gpus: Sequence[int], kind: int, now: float) -> tuple[int, int]:
        """GPU and device for a claim; the device is NOWHERE when none fits."""
        ...

    def choose_on(self, gpu: int, held: int, kind: int, now: float) -> int:
        """The device when only one GPU can have one."""
        ...

    def changed(self, gpu: int, held: int, now: float) -> None:
        """The state of a GPU is now ``held``."""
        ...


class FirstFit:
    """kube-scheduler with a fixed order: GPU by GPU, on each the first device that fits."""

    def __init__(self, occupancy: Occupancy, order: Order) -> None:
        self._occupancy = occupancy
        self._order = by_kind(order, occupancy.product)
        self._first: dict[int, tuple[int, ...]] = {}

    def choose(self, gpus: Sequence[int], kind: int, now: float) -> tuple[int, int]:
        first = self._first
        for gpu, held in enumerate(gpus):
            device = (first.get(held) or self._firsts(held))[kind]
            if device >= 0:
                return gpu, device
        return 0, NOWHERE

    def choose_on(self, gpu: int, held: int, kind: int, now: float) -> int:
        return (self._first.get(held) or self._firsts(held))[kind]

    def changed(self, gpu: int, held: int, now: float) -> None:
        """The order stays."""

    def _firsts(self, held: int) -> tuple[int, ...]:
        fitting = self._occupancy.fitting(held)
        self._first[held] = tuple(_first_of(order, fitting) for order in self._order)
        return self._first[held]


class Interleaved:
    """A fixed order across GPUs: for each kind first what leaves the largest part free on every GPU, then the rest."""

    def __init__(self, occupancy: Occupancy, gpus: int) -> None:
        product = occupancy.product
        self._occupancy = occupancy
        large = 0
        for device in product.devices:
            if device.slices < product.slices < 2 * device.slices:
                large |= device.memory_slices
        self._sequences: list[tuple[tuple[int, int], ...]] = []
        for order in by_kind(product.static, product):
            spared = [device for device in order if not product.devices[device].memory_slices & large]
            others = [device for device in order if product.devices[device].memory_slices & large]
            self._sequences.append(
                tuple((gpu, device) for tier in (spared, others) for gpu in range(gpus) for device in tier)
            )

    def choose(self, gpus: Sequence[int], kind: int, now: float) -> tuple[int, int]:
        return _first_across(self._occupancy, gpus, self._sequences[kind])

    def choose_on(self, gpu: int, held: int, kind: int, now: float) -> int:
        order = (device for where, device in self._sequences[kind] if where == gpu)
        return _first_of(order, self._occupancy.fitting(held))

    def changed(self, gpu: int, held: int, now: float) -> None:
        """The order stays."""


class BestFit:
    """Looks at all GPUs at that moment and takes the place that ends least. No scheduler can be told to do this; it is
    about what can be had without moving claims."""

    def __init__(self, occupancy: Occupancy) -> None:
        self._occupancy = occupancy
        self._kinds = range(len(occupancy.product.kinds))
        self._best: dict[int, tuple[tuple[Loss, int], ...]] = {}

    def choose(self, gpus: Sequence[int], kind: int, now: float) -> tuple[int, int]:
        best = self._best
        chosen, least = (0, NOWHERE), None
        for gpu, held in enumerate(gpus):
            loss, device = (best.get(held) or self._bests(held))[kind]
            if device >= 0 and (least is None or loss < least):
                chosen, least = (gpu, device), loss
        return chosen

    def choose_on(self, gpu: int, held: int, kind: int, now: float) -> int:
        return (self._best.get(held) or self._bests(held))[kind][1]

    def changed(self, gpu: int, held: int, now: float) -> None:
        """Nothing is published."""

    def _bests(self, held: int) -> tuple[tuple[Loss, int], ...]:
        fitting = self._occupancy.fitting(held)
        nothing: tuple[Loss, int] = ((), NOWHERE)
        self._best[held] = tuple(
            next((entry for entry in self._occupancy.line(held, kind) if fitting >> entry[1] & 1), nothing)
            for kind in self._kinds
        )
        return self._best[held]


class _Writes:
    """When slices are written: DELAY after a change, and INTERVAL after the slice's last write at the earliest."""

    def __init__(self, slices: int, lifetime: float) -> None:
        self._delay, self._interval = DELAY / lifetime, INTERVAL / lifetime
        self._due: list[float | None] = [None] * slices
        self._last = [-self._interval] * slices
        self.count = 0

    def want(self, number: int, now: float) -> None:
        if self._due[number] is None:
            self._due[number] = max(now + self._delay, self._last[number] + self._interval)

    def is_due(self, number: int, now: float) -> bool:
        due = self._due[number]
        return due is not None and due <= now

    def looked(self, number: int) -> None:
        """The order was found to be right: nothing is written."""
        self._due[number] = None

    def write(self, number: int) -> None:
        self._last[number] = self._due[number] or 0.0
        self._due[number] = None
        self.count += 1


class ReorderedWithin:
    """First fit where each GPU's slice is written again after its occupancy changed: its devices by what they would end
    now. The order of the GPUs stays, since it is that of slice names."""

    def __init__(self, occupancy: Occupancy, gpus: int, lifetime: float = 1.0) -> None:
        """``lifetime`` is how many hours an hour of the trace stands for."""
        self._occupancy = occupancy
        self._static = by_kind(occupancy.product.static, occupancy.product)
        self._now = [0] * gpus
        self._published = [0] * gpus  # the state that each slice was written for
        self._first: dict[tuple[int, int], tuple[int, ...]] = {}
        self.writes = _Writes(gpus, lifetime)

    def choose(self, gpus: Sequence[int], kind: int, now: float) -> tuple[int, int]:
        for gpu, held in enumerate(gpus):
            device = self.choose_on(gpu, held, kind, now)
            if device >= 0:
                return gpu, device
        return 0, NOWHERE

    def choose_on(self, gpu: int, held: int, kind: int, now: float) -> int:
        self._settle(gpu, now)
        key = (self._published[gpu], held)
        return (self._first.get(key) or self._firsts(key))[kind]

    def changed(self, gpu: int, held: int, now: float) -> None:
        self._settle(gpu, now)
        self._now[gpu] = held
        self.writes.want(gpu, now)

    def _settle(self, gpu: int, now: float) -> None:
        if self.writes.is_due(gpu, now):
            self._published[gpu] = self._now[gpu]
            self.writes.write(gpu)

    def _firsts(self, key: tuple[int, int]) -> tuple[int, ...]:
        published, held = key
        fitting = self._occupancy.fitting(held)
        self._first[key] = tuple(
            _first_of((*(device for _, device in self._occupancy.line(published, kind)), *order), fitting)
            for kind, order in enumerate(self._static)
        )
        return self._first[key]


class ReorderedAcross:
    """First fit where a slice holds one kind of device of all GPUs and is written again after occupancy changed: the
    place that would end least on any GPU first. Written only if another place than before is the first that fits."""

    def __init__(
        self, occupancy: Occupancy, gpus: int, lifetime: float = 1.0, kinds: Collection[int] | None = None
    ) -> None:
        """``lifetime`` is how many hours an hour of the trace stands for. ``kinds``: those of the trace, to save the time
        of looking after the others; all of them, to count their writes."""
        self._occupancy = occupancy
        self._now = [0] * gpus
        self._kinds = range(len(occupancy.product.kinds)) if kinds is None else sorted(kinds)
        static = by_kind(occupancy.product.static, occupancy.product)
        self._published = [[(gpu, device) for gpu in range(gpus) for device in order] for order in static]
        self.writes = _Writes(len(static), lifetime)

    def choose(self, gpus: Sequence[int], kind: int, now: float) -> tuple[int, int]:
        self._settle(kind, now)
        return _first_across(self._occupancy, gpus, self._published[kind])

    def choose_on(self, gpu: int, held: int, kind: int, now: float) -> int:
        self._settle(kind, now)
        order = (device for where, device in self._published[kind] if where == gpu)
        return _first_of(order, self._occupancy.fitting(held))

    def changed(self, gpu: int, held: int, now: float) -> None:
        for kind in self._kinds:
            self._settle(kind, now)
        self._now[gpu] = held
        for kind in self._kinds:
            self.writes.want(kind, now)

    def published(self, kind: int, now: float) -> Sequence[tuple[int, int]]:
        """GPU and device, in the order of the slice."""
        self._settle(kind, now)
        return self._published[kind]

    def _settle(self, kind: int, now: float) -> None:
        if not self.writes.is_due(kind, now):
            return
        wanted = list(self._wanted(kind))
        fit = set(wanted)
        published = self._published[kind]
        if self._next(wanted) == self._next(place for place in published if place in fit):
            self.writes.looked(kind)
            return
        self._published[kind] = wanted + [place for place in published if place not in fit]
        self.writes.write(kind)

    def _next(self, places: Iterable[tuple[int, int]]) -> tuple[int, int] | None:
        return next(((gpu, device) for gpu, device in places if self._fits(gpu, device)), None)

    def _fits(self, gpu: int, device: int) -> bool:
        return bool(self._occupancy.fitting(self._now[gpu]) >> device & 1)

    def _wanted(self, kind: int) -> Iterable[tuple[int, int]]:
        lines = (
            [(loss, gpu, device) for loss, device in self._occupancy.line(held, kind)]
            for gpu, held in enumerate(self._now)
        )
        # Lines are not sorted by loss: merge() takes the least of their heads, which is what is meant.
        return ((gpu, device) for _, gpu, device in merge(*lines))


def _first_of(order: Iterable[int], fitting: int) -> int:
    return next((device for device in order if fitting >> device & 1), NOWHERE)


def _first_across(occupancy: Occupancy, gpus: Sequence[int], order: Iterable[tuple[int, int]]) -> tuple[int, int]:
    fitting = [occupancy.fitting(held) for held in gpus]
    return next(((gpu, device) for gpu, device in order if fitting[gpu] >> device & 1), (0, NOWHERE))
