"""The kubelet's calls, one by one, back to back, together and at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from google.protobuf.json_format import MessageToDict

from api.kubelet.dra_v1_pb2 import Claim
from e2e.bench_peer import claims
from e2e.bench_peer.cases.idle import ALL, rss
from e2e.bench_peer.claims import Wanted
from e2e.bench_peer.comparison import without
from e2e.bench_peer.serving import Serving, working
from e2e.bench_peer.slices import GPUS
from tests.bench.calls import Calls

_PACE = 0.3
_PACED = 10
_BURST = 10  # what the peer's client of the API server lets through at once by default
_BACK_TO_BACK = 30
_REPEATED = 30
_BATCHES = 10
_PARALLEL = 3
_PAIRS = 300


def paced(serving: Serving) -> None:
    """One claim at a time with a pause, as a quiet node sees it."""
    _paced(serving, "one claim", claims.gpu, _PACED)


def paced_mig(serving: Serving) -> None:
    """A MIG device made and taken away again, on a GPU without any."""
    _paced(serving, "MIG 1g.10gb", claims.mig, 7)
    rss(serving, "dynamic MIG")


def paced_sliced(serving: Serving) -> None:
    """The calls of nvidia-smi that set and reset an interval are in it."""
    _paced(serving, "time slices", claims.sliced, 3)


def paced_share(serving: Serving) -> None:
    """10Gi of a GPU that several claims may have a share of; only counted, never fenced."""
    _paced(serving, "a share of a GPU", claims.share, 6)


def paced_mps(serving: Serving) -> None:
    """The start and the end of the control daemon are in it."""
    _paced(serving, "MPS", claims.by_mps, 3)


def back_to_back(serving: Serving) -> None:
    """Pairs without a pause, from when the peer's client of the API server may burst again."""
    time.sleep(_BURST / 5)  # its default rate is 5/s
    with serving.run.claims.allocated([claims.gpu(minor) for minor in range(GPUS)]) as made:
        prepares, _ = _pairs(serving.client, made, _BACK_TO_BACK)
    serving.add("prepare, back to back, default limits", "ms", *prepares)
    serving.add("  of it the first ten", "ms", *prepares[:_BURST])
    serving.add("  of it from the eleventh on", "ms", *prepares[_BURST:])


def repeated(serving: Serving) -> None:
    with serving.run.claims.allocated([claims.gpu(0)]) as made:
        serving.client.prepare(made)
        serving.add("repeated prepare of a prepared claim", "ms", *_times(_REPEATED, serving.client.prepare, made))
        serving.client.unprepare(made)


def batched(serving: Serving) -> None:
    """All GPUs' claims in one call."""
    with serving.run.claims.allocated([claims.gpu(minor) for minor in range(GPUS)]) as made:
        for _ in range(_BATCHES):
            serving.add("prepare, 8 claims in one call", "ms", serving.client.prepare(made))
            serving.add("unprepare, 8 claims in one call", "ms", serving.client.unprepare(made))


def parallel(serving: Serving) -> None:
    """Wall time until the last of 8 calls is answered."""
    with (
        ThreadPoolExecutor(GPUS) as pool,
        serving.run.claims.allocated([claims.gpu(minor) for minor in range(GPUS)]) as made,
    ):
        for _ in range(_PARALLEL):
            for word, call in (("prepares", serving.client.prepare), ("unprepares", serving.client.unprepare)):
                began = time.perf_counter()
                list(pool.map(call, [[claim] for claim in made]))
                took = (time.perf_counter() - began) * 1000
                serving.add(f"8 parallel {word} on 8 GPUs, wall", "ms", took)


def unthrottled(serving: Serving) -> None:
    """Many pairs without a pause, and what they cost."""
    with (
        serving.run.claims.allocated([claims.gpu(minor) for minor in range(GPUS)]) as made,
        working(serving, _PAIRS) as work,
    ):
        prepares, unprepares = _pairs(serving.client, made, _PAIRS)
    serving.add("prepare, back to back, limits raised", "ms", *prepares)
    serving.add("unprepare, back to back, limits raised", "ms", *unprepares)
    rss(serving, f"after {_PAIRS} prepares")
    serving.add("CPU per prepare+unprepare, plugin", "ms", work.plugin)
    serving.add(f"CPU per prepare+unprepare, {ALL}", "ms", work.everything)


def _paced(serving: Serving, what: str, wanted: Callable[[int], Wanted], count: int) -> None:
    client = serving.client
    with serving.run.claims.allocated([wanted(minor) for minor in range(GPUS)]) as made:
        _show(serving, what, made[0])
        for number in range(count):
            claim = made[number % len(made)]
            time.sleep(_PACE)
            serving.add(f"prepare, {what}, paced {_PACE:g} s", "ms", client.prepare([claim]))
            time.sleep(_PACE)
            serving.add(f"unprepare, {what}, paced {_PACE:g} s", "ms", client.unprepare([claim]))


def _show(serving: Serving, what: str, claim: Claim) -> None:
    """One claim prepared outside of the measurement, for what is answered and written; it warms both drivers up."""
    answer = serving.client.answer(claim)
    texts = {claim.uid: "UID", **({answer.devices[0].share_id: "SHARE"} if answer.devices[0].share_id else {})}
    serving.show(f"answer of a prepare, {what}", without(MessageToDict(answer), texts))
    serving.show(f"CDI files, {what}", without(serving.run.node.cdi_files(), texts))
    serving.client.unprepare([claim])


def _pairs(client: Calls, made: list[Claim], count: int) -> tuple[list[float], list[float]]:
    prepares, unprepares = [], []
    for number in range(count):
        one = [made[number % len(made)]]
        prepares.append(client.prepare(one))
        unprepares.append(client.unprepare(one))
    return prepares, unprepares


def _times(count: int, call: Callable[[list[Claim]], float], made: list[Claim]) -> list[float]:
    return [call(made) for _ in range(count)]
