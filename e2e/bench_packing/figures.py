"""The figures of one packing at one size, over all its runs, and the table that sets both beside each other. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from api.mig_policy import MigPacking
from e2e.bench_packing.control import API_SERVER, CONTROLLER, SCHEDULER, Reading
from e2e.bench_packing.counts import Counts
from e2e.bench_packing.play import Played
from e2e.bench_packing.room import compute_slices
from e2e.bench_packing.seen import Pod
from tests.bench.report import aligned, nearest_rank

_LARGE = 4  # compute slices: what fragmentation keeps out
_SLICES = {"group": "resource.k8s.io", "resource": "resourceslices"}
_MIB = 2**20
_TELLING = 100.0  # a larger ratio is that of something to nearly nothing
_ATTEMPT = "scheduler_scheduling_attempt_duration_seconds"


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. ``readings`` are what components counted in it; ``generations``: how many the pools moved by."""

    nodes: int
    capacity: int  # compute slices of all nodes
    played: Played
    readings: Mapping[str, Reading]
    generations: int


_Samples = Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Line:
    """``measure`` may be NaN where there is nothing."""

    case: str
    unit: str
    measure: Callable[[_Samples], float]


def table(by_size: Mapping[int, Mapping[MigPacking, Sequence[Sample]]]) -> str:
    first, second = MigPacking.PER_GPU, MigPacking.ACROSS_GPUS
    rows = [["nodes", "figure", first.value, second.value, "ratio"]]
    for nodes, samples in by_size.items():
        if not all(samples.get(packing) for packing in (first, second)):
            continue
        for line in LINES:
            left, right = line.measure(samples[first]), line.measure(samples[second])
            ratio = f"{right / left:.2f}" if left and right / left < _TELLING else ""
            rows.append([str(nodes), line.case, _figure(left, line.unit), _figure(right, line.unit), ratio])
    return aligned(rows)


def _figure(value: float, unit: str) -> str:
    if math.isnan(value):
        return "-"
    text = f"{value:.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def _pods(samples: _Samples) -> list[Pod]:
    return [pod for sample in samples for pod in sample.played.pods]


def _counts(samples: _Samples, component: str) -> Counts:
    return Counts.sum(sample.readings[component].counts for sample in samples)


def _count(matches: Callable[[Pod], bool]) -> Callable[[_Samples], float]:
    return lambda samples: float(sum(matches(pod) for pod in _pods(samples)))


def _waits(samples: _Samples, matches: Callable[[Pod], bool]) -> list[float]:
    return [pod.waited for pod in _pods(samples) if pod.waited is not None and matches(pod)]


def _wait(matches: Callable[[Pod], bool], share: float, scale: float = 1.0) -> Callable[[_Samples], float]:
    return lambda samples: nearest_rank(_waits(samples, matches), share) * scale


def _mean_wait(matches: Callable[[Pod], bool]) -> Callable[[_Samples], float]:
    def measure(samples: _Samples) -> float:
        waits = _waits(samples, matches)
        return sum(waits) / len(waits) if waits else math.nan

    return measure


def _attempts(result: str) -> Callable[[_Samples], float]:
    return lambda samples: _counts(samples, SCHEDULER).total("scheduler_schedule_attempts_total", result=result)


def _tried_again(samples: _Samples) -> float:
    """Pods that waited and were taken up again because a slice was written."""
    event = "resource.k8s.io/ResourceSliceUpdate"
    return _counts(samples, SCHEDULER).total("scheduler_queue_incoming_pods_total", event=event)


def _attempt(share: float, result: str) -> Callable[[_Samples], float]:
    """A quantile of the attempts with that result, in milliseconds."""
    return lambda samples: 1000 * _counts(samples, SCHEDULER).quantile(_ATTEMPT, share, result=result)


def _attempt_mean(result: str) -> Callable[[_Samples], float]:
    def measure(samples: _Samples) -> float:
        counts = _counts(samples, SCHEDULER)
        count = counts.total(f"{_ATTEMPT}_count", result=result)
        return 1000 * counts.total(f"{_ATTEMPT}_sum", result=result) / count if count else math.nan

    return measure


def _an_hour(component: str, name: str, scale: float = 1.0, **labels: str) -> Callable[[_Samples], float]:
    """A counter's growth for one node in an hour."""

    def measure(samples: _Samples) -> float:
        hours = sum(sample.played.seconds * sample.nodes for sample in samples) / 3600
        return _counts(samples, component).total(name, **labels) * scale / hours

    return measure


def _per_second(component: str) -> Callable[[_Samples], float]:
    def measure(samples: _Samples) -> float:
        return sum(each.readings[component].cpu_ms for each in samples) / sum(each.played.seconds for each in samples)

    return measure


def _busy(samples: _Samples) -> float:
    return 100 * sum(each.played.busy for each in samples) / sum(each.capacity for each in samples)


def _is_large(pod: Pod) -> bool:
    return compute_slices(pod.profile) >= _LARGE


def _first_try(pod: Pod) -> bool:
    return pod.refused is None


def _waited_for_room(pod: Pod) -> bool:
    return pod.refused is not None


LINES = (
    Line("pods created", "", _count(lambda _: True)),
    Line("pods never scheduled", "", _count(lambda pod: pod.scheduled is None)),
    Line("pods refused at first", "", _count(_waited_for_room)),
    Line("  although there was room for a second", "", _count(lambda pod: pod.room_missed)),
    Line("created -> scheduled at the first try, p50", "ms", _wait(_first_try, 0.5, 1000)),
    Line("  p95", "ms", _wait(_first_try, 0.95, 1000)),
    Line("  p99", "ms", _wait(_first_try, 0.99, 1000)),
    Line("created -> scheduled, all pods, p50", "s", _wait(lambda _: True, 0.5)),
    Line("  p95", "s", _wait(lambda _: True, 0.95)),
    Line("  p99", "s", _wait(lambda _: True, 0.99)),
    Line("  mean", "s", _mean_wait(lambda _: True)),
    Line("  mean of 4g and larger", "s", _mean_wait(_is_large)),
    Line("attempts that scheduled", "", _attempts("scheduled")),
    Line("  mean", "ms", _attempt_mean("scheduled")),
    Line("  p99", "ms", _attempt(0.99, "scheduled")),
    Line("attempts that found no room", "", _attempts("unschedulable")),
    Line("  mean", "ms", _attempt_mean("unschedulable")),
    Line("  pods tried again because of a slice", "", _tried_again),
    Line("attempts that failed", "", _attempts("error")),
    Line("compute slices in use", "%", _busy),
    Line("slice writes a node and hour", "", _an_hour(CONTROLLER, "gpu_dra_controller_slice_writes_total")),
    Line("  MiB written", "MiB", _an_hour(API_SERVER, "apiserver_request_body_size_bytes_sum", 1 / _MIB, **_SLICES)),
    Line("  MiB sent on watches", "MiB", _an_hour(API_SERVER, "apiserver_watch_events_sizes_sum", 1 / _MIB, **_SLICES)),
    Line("generations moved", "", lambda samples: float(sum(each.generations for each in samples))),
    Line("processor time of the controller", "ms/s", _per_second(CONTROLLER)),
    Line("  of kube-scheduler", "ms/s", _per_second(SCHEDULER)),
    Line("  of kube-apiserver", "ms/s", _per_second(API_SERVER)),
)
