"""Metrics of a process: its own registry, and collectors that read reflectors and queues when they are scraped.

No metric lives in prometheus_client's global registry, so that two daemons in one process (tests, the demo) do not
share counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dra_driver.version import __version__


def new_registry(component: str) -> CollectorRegistry:
    """A registry with the usual process, platform and garbage collector metrics, and ``gpu_dra_build_info``."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(_BuildInfo(component))
    return registry


class ReflectorStatistics(Protocol):
    """What the reflector collector reads (``dra_driver.kube.reflector.Reflector`` has it)."""

    @property
    def name(self) -> str: ...
    @property
    def relists(self) -> int: ...
    @property
    def failures(self) -> int: ...
    def last_event_age(self) -> float: ...
    def __len__(self) -> int: ...


class ReflectorCollector(Collector):
    """``gpu_dra_reflector_*``, one series per watched resource."""

    def __init__(self, reflectors: Sequence[ReflectorStatistics]) -> None:
        self._reflectors = reflectors

    def collect(self) -> Iterator[Metric]:
        relists = CounterMetricFamily("gpu_dra_reflector_relists", "Full lists done.", labels=["resource"])
        failures = CounterMetricFamily(
            "gpu_dra_reflector_failures", "Lists and watches that ended in an error.", labels=["resource"]
        )
        age = GaugeMetricFamily(
            "gpu_dra_reflector_last_event_age_seconds",
            "Time since the server last said anything (list, event or bookmark).",
            labels=["resource"],
        )
        objects = GaugeMetricFamily("gpu_dra_reflector_objects", "Objects in the local store.", labels=["resource"])
        for reflector in self._reflectors:
            relists.add_metric([reflector.name], reflector.relists)
            failures.add_metric([reflector.name], reflector.failures)
            age.add_metric([reflector.name], reflector.last_event_age())
            objects.add_metric([reflector.name], len(reflector))
        yield from (relists, failures, age, objects)


class LoopStatistics(Protocol):
    """What the loop collector reads (``dra_driver.observability.loops.Loop`` has it)."""

    name: str

    @property
    def started(self) -> bool: ...
    @property
    def errors(self) -> int: ...
    @property
    def last_round(self) -> float: ...
    def overdue(self) -> float: ...


class LoopCollector(Collector):
    """``gpu_dra_loop_*``, one series per loop that was started."""

    def __init__(self, loops: Iterable[LoopStatistics]) -> None:
        self._loops = tuple(loops)

    def collect(self) -> Iterator[Metric]:
        last = GaugeMetricFamily(
            "gpu_dra_loop_last_round_timestamp_seconds", "When a loop's last round ended; 0 before.", labels=["loop"]
        )
        overdue = GaugeMetricFamily(
            "gpu_dra_loop_overdue_seconds",
            "How long a loop stands still beyond its limit; 0 for one that works, or rightly waits.",
            labels=["loop"],
        )
        errors = CounterMetricFamily(
            "gpu_dra_loop_errors", "Exceptions in a loop's rounds and in whom it told.", labels=["loop"]
        )
        for loop in self._loops:
            if loop.started:
                last.add_metric([loop.name], loop.last_round)
                overdue.add_metric([loop.name], loop.overdue())
                errors.add_metric([loop.name], loop.errors)
        yield from (last, overdue, errors)


class QueueStatistics(Protocol):
    """What the queue collector reads (``dra_driver.kube.workqueue.WorkQueue`` has it)."""

    @property
    def name(self) -> str: ...
    @property
    def retries_total(self) -> int: ...
    def __len__(self) -> int: ...


class QueueCollector(Collector):
    """``gpu_dra_workqueue_*``, one series per queue."""

    def __init__(self, queues: Iterable[QueueStatistics]) -> None:
        self._queues = tuple(queues)

    def collect(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("gpu_dra_workqueue_depth", "Keys ready to be worked on.", labels=["queue"])
        retries = CounterMetricFamily("gpu_dra_workqueue_retries", "Keys put back after a failure.", labels=["queue"])
        for queue in self._queues:
            depth.add_metric([queue.name], len(queue))
            retries.add_metric([queue.name], queue.retries_total)
        yield from (depth, retries)


class _BuildInfo(Collector):
    def __init__(self, component: str) -> None:
        self._component = component

    def collect(self) -> Iterator[Metric]:
        info = InfoMetricFamily("gpu_dra_build", "Which component and version this is.")
        info.add_metric([], {"component": self._component, "version": __version__})
        yield info
