"""``python -m tests.bench.packing.search``: is there a better fixed order than ours? Hill climbing from it and from random ones.

An order is judged by the mean over the mixes of what it runs more than the alphabet. What is found is tuned to the traces
that it was judged by, so the best one is judged again by others. Deterministic; about two minutes for each product.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from random import Random

from tests.bench.packing.measure import GPUS
from tests.bench.packing.occupancy import Occupancy
from tests.bench.packing.play import Unfit, play
from tests.bench.packing.policies import FirstFit
from tests.bench.packing.products import Order, product
from tests.bench.packing.traces import Arrival, Mix, mixes, trace

_JUDGED_BY, _JUDGED_AGAIN_BY = range(1000, 1012), range(2000, 2030)
_ARRIVALS = 2000
_PATIENCE = 20  # swaps without gain until the next start

Traces = dict[str, list[tuple[Arrival, ...]]]


class Judge:
    """Gains of orders in percent, by mix."""

    def __init__(self, occupancy: Occupancy, seeds: Sequence[int]) -> None:
        self._occupancy = occupancy
        self._traces = {mix.name: self._played(mix, seeds) for mix in mixes(occupancy.product) if len(mix.shares) != 1}
        self._base = self._work(occupancy.product.alphabetical)
        self._known: dict[Order, dict[str, float]] = {}

    def gains(self, order: Order) -> dict[str, float]:
        if order not in self._known:
            self._known[order] = {name: 100 * (work / self._base[name] - 1) for name, work in self._work(order).items()}
        return self._known[order]

    def mean(self, order: Order) -> float:
        return statistics.fmean(self.gains(order).values())

    def _work(self, order: Order) -> dict[str, float]:
        policy = FirstFit(self._occupancy, order)
        return {
            name: sum(
                play(self._occupancy.product, played, policy, gpus=GPUS, unfit=Unfit.REFUSED).work for played in traces
            )
            for name, traces in self._traces.items()
        }

    def _played(self, mix: Mix, seeds: Sequence[int]) -> list[tuple[Arrival, ...]]:
        node = self._occupancy.product
        return [trace(node, mix, gpus=GPUS, load=1.0, arrivals=_ARRIVALS, seed=seed) for seed in seeds]


def climb(judge: Judge, start: Order, kinds: Sequence[int], random: Random, budget: int) -> tuple[Order, int]:
    """Swaps of two devices of one kind, as long as they help; returns the order and what is left of ``budget``."""
    best, idle = start, 0
    while idle < _PATIENCE and budget > 0:
        first = random.randrange(len(best))
        second = random.choice([index for index, device in enumerate(best) if kinds[device] == kinds[best[first]]])
        if first == second:
            continue
        order = list(best)
        order[first], order[second] = order[second], order[first]
        budget -= 1
        if judge.mean(tuple(order)) > judge.mean(best):
            best, idle = tuple(order), 0
        else:
            idle += 1
    return best, budget


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.packing.search", description="Is there a better fixed order of devices than ours?"
    )
    parser.add_argument("machine", nargs="?", default="a100-sxm4-40gb")
    parser.add_argument("--orders", type=int, default=400, help="how many to try")
    arguments = parser.parse_args()
    node = product(arguments.machine)
    judge = Judge(Occupancy(node), _JUDGED_BY)
    kinds = [device.kind for device in node.devices]
    random, budget = Random(1), arguments.orders
    best, start = node.static, node.static
    while budget > 0:
        found, budget = climb(judge, start, kinds, random, budget)
        best = max(best, found, key=judge.mean)
        start = tuple(random.sample(node.static, len(node.static)))
    again = Judge(Occupancy(node), _JUDGED_AGAIN_BY)
    for name, order in (("ours", node.static), ("best found", best)):
        gains = ", ".join(f"{mix} {value:+.2f}" for mix, value in again.gains(order).items())
        print(f"{name}: {judge.mean(order):+.2f} %, by other traces {again.mean(order):+.2f} % ({gains})")
    for kind, name in enumerate(node.kinds):
        starts = [
            placement.start
            for device in best
            if kinds[device] == kind and (placement := node.devices[device].placement) is not None
        ]
        if len(starts) > 1:
            print(f"  {name}: {starts}")


if __name__ == "__main__":
    main()
