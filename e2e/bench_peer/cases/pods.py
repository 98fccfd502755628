"""Whole pods, by scheduler, kubelet and containerd: what a GPU adds until Ready, and what a pod costs the driver."""

from __future__ import annotations

import time

from e2e.bench_peer.cases.idle import ALL
from e2e.bench_peer.figures import Difference
from e2e.bench_peer.serving import Serving, working
from e2e.bench_peer.slices import GPUS

_PAIRS = 4
_TRAILING_SECONDS = 1.0  # work that a driver puts off is part of what a pod costs
_WITHOUT, _HAVING = "pod create -> Ready, no claim", "pod create -> Ready, one GPU"

DIFFERENCE = Difference("  difference of the medians", _HAVING, _WITHOUT, "ms", 1000)


def single(serving: Serving) -> None:
    """Pods without and with a claim in turns."""
    with working(serving, _PAIRS) as work:
        without, having, gone = serving.run.pods.pairs(_PAIRS)
        time.sleep(_TRAILING_SECONDS)
    serving.add(_WITHOUT, "s", *without)
    serving.add(_HAVING, "s", *having)
    serving.add("pod delete -> claim and CDI file gone", "s", *gone)
    serving.add("CPU per pod with a GPU, plugin", "ms", work.plugin)
    serving.add(f"CPU per pod with a GPU, {ALL}", "ms", work.everything)


def burst(serving: Serving) -> None:
    """As many pods at once as there are GPUs."""
    without, having = serving.run.pods.bursts(1, GPUS)
    serving.add("8 pods at once, no claim: last Ready", "s", *without.last)
    serving.add("8 pods at once, one GPU each: last Ready", "s", *having.last)
    if having.refused:
        serving.run.figures.note(
            f"{serving.driver.side}: 8 pods at once, one GPU each: the API server's authorizer at first refused the "
            "kubelet a claim, which is no doing of the driver; the kubelet tries again after 5 s"
        )
