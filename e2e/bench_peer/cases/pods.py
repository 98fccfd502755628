"""Whole pods, by scheduler, kubelet and containerd: what a GPU adds until Ready, and what a pod costs the driver."""

from __future__ import annotations

import time
from collections.abc import Collection

from e2e.bench_peer.cases.idle import ALL
from e2e.bench_peer.figures import Difference
from e2e.bench_peer.serving import Serving, working
from e2e.bench_peer.slices import GPUS
from e2e.kit.space import AUTHORIZER_LAGS

_PAIRS = 4
_TRAILING_SECONDS = 1.0  # work that a driver puts off is part of what a pod costs
_WITHOUT, _HAVING = "pod create -> Ready, no claim", "pod create -> Ready, one GPU"

DIFFERENCE = Difference("  difference of the medians", _HAVING, _WITHOUT, "ms", 1000)


def single(serving: Serving) -> None:
    """Pods without and with a claim in turns."""
    before = serving.run.pods.failures()
    with working(serving, _PAIRS) as work:
        without, having, gone = serving.run.pods.pairs(_PAIRS)
        time.sleep(_TRAILING_SECONDS)
    serving.add(_WITHOUT, "s", *without)
    serving.add(_HAVING, "s", *having)
    serving.add("pod delete -> claim and CDI file gone", "s", *gone)
    serving.add("CPU per pod with a GPU, plugin", "ms", work.plugin)
    serving.add(f"CPU per pod with a GPU, {ALL}", "ms", work.everything)
    _tell(serving, _HAVING, before)


def burst(serving: Serving) -> None:
    """As many pods at once as there are GPUs."""
    before = serving.run.pods.failures()
    without, having = serving.run.pods.bursts(1, GPUS)
    serving.add("8 pods at once, no claim: last Ready", "s", *without.last)
    serving.add("8 pods at once, one GPU each: last Ready", "s", *having.last)
    _tell(serving, "8 pods at once, one GPU each", before)


def _tell(serving: Serving, case: str, before: Collection[str]) -> None:
    """A note for each reason why pods waited; the kubelet tries a failed prepare again after 5 s."""
    messages = [message for pod, message in serving.run.pods.failures().items() if pod not in before]
    refused = sum(AUTHORIZER_LAGS in message for message in messages)
    where = f"{serving.driver.side}: {case}:"
    if refused:
        serving.run.figures.note(
            f"{where} the API server's authorizer refused {refused} claims at first, not the driver"
        )
    for message in messages:
        if AUTHORIZER_LAGS not in message:
            serving.run.figures.note(f"{where} a prepare failed at first: {message}")
