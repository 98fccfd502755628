"""What is asked of the nodes, the same for both packings: claims that are there at first, and pods that come. Pure.

One random trace of :mod:`tests.bench.packing.traces`, its hours of life scaled to what a run has time for. Its first
part is played here, on nodes filled by first fit, until they are as full and as broken up as they will be; what lives
then is what the run begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random

from e2e.bench_packing.room import Kind, Place, Room
from tests.bench.packing.products import product
from tests.bench.packing.traces import Mix, mean_slices, trace

GPUS = 8
_LIVES_BEFORE = 4.0  # of the mean life: by then the nodes have forgotten that they were empty


@dataclass(frozen=True, slots=True)
class Beginning:
    """A claim that holds its device when the run begins; ``ends`` in seconds from then."""

    place: Place
    ends: float


@dataclass(frozen=True, slots=True)
class Coming:
    """A pod to create ``at`` so many seconds after the beginning, which lives for ``life`` from being scheduled."""

    at: float
    profile: str
    life: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """``mean_life`` in seconds is what follows from the load and the rate of pods."""

    beginnings: tuple[Beginning, ...]
    coming: tuple[Coming, ...]
    mean_life: float


@dataclass(frozen=True, slots=True)
class Wish:
    """``rate``: pods a second; ``load``: what is asked for, in compute slices, by what the nodes have."""

    machine: str
    mix: Mix
    rate: float
    load: float
    seconds: float
    seed: int = 1


def traffic(wish: Wish, kind: Kind, nodes: Sequence[str]) -> Traffic:
    gpu = product(wish.machine)
    gpus = GPUS * len(nodes)
    mean_life = wish.load * gpus * gpu.slices / mean_slices(gpu, wish.mix) / wish.rate
    before = _LIVES_BEFORE * mean_life
    count = round((before + wish.seconds) * wish.rate * 1.2) + 50
    arrivals = trace(gpu, wish.mix, gpus=gpus, load=wish.load, arrivals=count, seed=wish.seed)
    room, random = Room(kind, nodes), Random(wish.seed)  # noqa: S311 - no secret
    living: list[tuple[float, Place]] = []
    coming: list[Coming] = []
    for arrival in arrivals:
        at, life, profile = arrival.at * mean_life, arrival.lifetime * mean_life, gpu.kinds[arrival.kind]
        if at >= before + wish.seconds:
            break
        if at >= before:
            coming.append(Coming(at - before, profile, life))
            continue
        while living and living[0][0] <= at:
            room.give_back(heappop(living)[1])
        place = room.first_fit(profile, random.sample(nodes, len(nodes)))
        if place is not None:
            room.take(place)
            heappush(living, (at + life, place))
    beginnings = tuple(Beginning(place, ends - before) for ends, place in sorted(living) if ends > before)
    return Traffic(beginnings, tuple(coming), mean_life)
