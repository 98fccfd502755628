"""``make bench-packing``: how well claims for parts of GPUs are packed by the order of devices. See docs/dev/packing.md.

Deterministic: the same tables on every machine, in about four minutes on one core. ``--machine`` plays one product only,
``--quick`` few and short traces.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from tests.bench.packing.measure import FULL, compare, writes
from tests.bench.packing.occupancy import Occupancy
from tests.bench.packing.play import Unfit
from tests.bench.packing.products import product
from tests.bench.packing.report import blocked_table, waiting_table, work_table, writes_table
from tests.bench.packing.traces import mixes

MACHINES = ("a100-sxm4-40gb", "h100-sxm5-80gb", "a30", "rtx-pro-6000")
LIFETIMES = (2.0, 1.0, 1 / 6, 1 / 30)  # hours


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.packing", description="How well claims for parts of GPUs are packed."
    )
    parser.add_argument("--machine", action="append", choices=MACHINES, help="default: all of them")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    plan = replace(FULL, seeds=4, arrivals=500) if arguments.quick else FULL
    nodes = [Occupancy(product(machine)) for machine in arguments.machine or MACHINES]
    refused = [compare(node, mix, Unfit.REFUSED, plan) for node in nodes for mix in mixes(node.product)]
    print(f"Work against the alphabet in %, what does not fit is refused, loads {plan.refused_loads}\n")
    print(work_table(refused))
    print("\nLarge claims refused although enough compute slices were free in total, in %\n")
    print(blocked_table(refused))
    waiting = [compare(node, mix, Unfit.WAITS, plan) for node in nodes for mix in mixes(node.product)]
    print(f"\nMean wait in minutes, claims live 60 on average, what does not fit waits, loads {plan.waiting_loads}\n")
    print(waiting_table(waiting))
    print("\nWork against the alphabet in %, what does not fit waits\n")
    print(work_table(waiting))
    print(f"\nReordering across GPUs, {nodes[0].product.machine}, load 1.0, what does not fit is refused\n")
    few = replace(plan, seeds=max(2, plan.seeds // 4))
    print(
        writes_table(writes(nodes[0], mix, hours, few) for mix in mixes(nodes[0].product)[1:4] for hours in LIFETIMES)
    )


if __name__ == "__main__":
    main()
