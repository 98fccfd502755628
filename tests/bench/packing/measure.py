"""Plays the same traces against every policy and compares them with the alphabet, seed by seed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.packing.occupancy import Occupancy
from tests.bench.packing.play import Outcome, Unfit, play
from tests.bench.packing.policies import (
    BestFit,
    FirstFit,
    Interleaved,
    Policy,
    ReorderedAcross,
    ReorderedWithin,
)
from tests.bench.packing.products import Product
from tests.bench.packing.traces import Arrival, Mix, trace

GPUS = 8
ALPHABETICAL, STATIC, BEST = "alphabet", "static", "best fit"
WITHIN, ACROSS, INTERLEAVED = "within GPU", "across GPUs", "interleaved"

MakePolicy = Callable[[Occupancy, Sequence[Arrival]], Policy]

# Made for every trace: some have a memory.
POLICIES: dict[str, MakePolicy] = {
    ALPHABETICAL: lambda occupancy, _: FirstFit(occupancy, occupancy.product.alphabetical),
    STATIC: lambda occupancy, _: FirstFit(occupancy, occupancy.product.static),
    WITHIN: lambda occupancy, _: ReorderedWithin(occupancy, GPUS),
    ACROSS: lambda occupancy, played: ReorderedAcross(occupancy, GPUS, kinds={arrival.kind for arrival in played}),
    INTERLEAVED: lambda occupancy, _: Interleaved(occupancy, GPUS),
    BEST: lambda occupancy, _: BestFit(occupancy),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is played. Figures of several loads are pooled."""

    seeds: int
    arrivals: int
    refused_loads: tuple[float, ...]
    waiting_loads: tuple[float, ...]


FULL = Plan(seeds=12, arrivals=1500, refused_loads=(0.8, 1.0, 1.2), waiting_loads=(0.8, 0.95))


@dataclass(frozen=True, slots=True)
class Gain:
    """A change against the alphabet in percent: the mean of paired traces and half of its 95 % confidence interval."""

    mean: float
    margin: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ±{self.margin:.2f}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All policies on one product, mix and way to treat what does not fit. Outcomes are in the order of the traces."""

    product: Product
    mix: Mix
    outcomes: dict[str, list[Outcome]]

    def work(self, policy: str) -> Gain:
        pairs = zip(self.outcomes[policy], self.outcomes[ALPHABETICAL], strict=True)
        return gain([100 * (ours.work / theirs.work - 1) for ours, theirs in pairs])

    def blocked(self, policy: str) -> float | None:
        """Percent of the claims for large kinds that found enough compute slices free, but not where they fit."""
        large = sum(outcome.large for outcome in self.outcomes[policy])
        return 100 * sum(outcome.blocked for outcome in self.outcomes[policy]) / large if large else None

    def kinds(self) -> list[int]:
        return sorted({kind for outcome in self.outcomes[ALPHABETICAL] for kind in outcome.waits})

    def wait(self, policy: str, kind: int) -> float:
        """Mean over all claims, in minutes where a claim lives for an hour on average."""
        waits = [wait for outcome in self.outcomes[policy] for wait in outcome.waits.get(kind, ())]
        return 60 * statistics.fmean(waits) if waits else 0.0


def compare(
    occupancy: Occupancy, mix: Mix, unfit: Unfit, plan: Plan, policies: Sequence[str] = tuple(POLICIES)
) -> Comparison:
    loads = plan.refused_loads if unfit is Unfit.REFUSED else plan.waiting_loads
    product = occupancy.product
    outcomes: dict[str, list[Outcome]] = {name: [] for name in policies}
    for load in loads:
        for seed in range(plan.seeds):
            played = trace(product, mix, gpus=GPUS, load=load, arrivals=plan.arrivals, seed=seed)
            for name in policies:
                policy = POLICIES[name](occupancy, played)
                outcomes[name].append(play(product, played, policy, gpus=GPUS, unfit=unfit))
    return Comparison(product, mix, outcomes)


def gain(percents: Sequence[float]) -> Gain:
    """With the normal distribution's 1.96: for the tens of traces of a full run."""
    return Gain(statistics.fmean(percents), 1.96 * statistics.stdev(percents) / len(percents) ** 0.5)


@dataclass(frozen=True, slots=True)
class Writes:
    """Slice writes of reordering across GPUs, for one mix: on average, for each GPU and hour."""

    mix: Mix
    lifetime: float  # of a claim, in hours
    rate: float
    work: Gain


def writes(occupancy: Occupancy, mix: Mix, lifetime: float, plan: Plan) -> Writes:
    """With all kinds of devices looked after, also those that nobody asks for, at full load. An upper bound: here each
    kind is a slice of its own, in a node's pool small ones share one."""
    rates, percents = [], []
    for seed in range(plan.seeds):
        played = trace(occupancy.product, mix, gpus=GPUS, load=1.0, arrivals=plan.arrivals, seed=seed)
        policy = ReorderedAcross(occupancy, GPUS, lifetime)
        ours = play(occupancy.product, played, policy, gpus=GPUS, unfit=Unfit.REFUSED)
        theirs = play(
            occupancy.product, played, POLICIES[ALPHABETICAL](occupancy, played), gpus=GPUS, unfit=Unfit.REFUSED
        )
        rates.append(policy.writes.count / (played[-1].at * lifetime) / GPUS)
        percents.append(100 * (ours.work / theirs.work - 1))
    return Writes(mix, lifetime, statistics.fmean(rates), gain(percents))
