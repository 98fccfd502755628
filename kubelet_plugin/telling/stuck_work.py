"""Tells people of work that does not get on: a metric, a sentence for readiness, and an Event on the Node after a time.

A GPU that does not answer fails nobody's call for good: each is told to try again, so without this only the pods' own
events would show it, one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dra_driver.observability.events import EventKind, EventRecorder, ObjectRef
from dra_driver.observability.loops import Loop
from kubelet_plugin.prepare.stuck import StuckWork

logger = logging.getLogger(__name__)

SLOW_SECONDS = 30.0  # in the metric; the slowest call known is a MIG instance's, of some seconds
TOLD_SECONDS = 60.0  # by readiness and by an Event
_LOOK_SECONDS = 10.0
_LIMIT_SECONDS = 60.0

FindStuck = Callable[[float], Sequence[StuckWork]]


class StuckWorkEvents:
    """One thread, ``stuck-work``, between start and stop; an Event for each step that is stuck, once, and its end."""

    def __init__(self, find: FindStuck, events: EventRecorder, node: ObjectRef, *, after: float = TOLD_SECONDS) -> None:
        """``find``: the work that has been at one step for longer than so many seconds."""
        self._find = find
        self._events = events
        self._node = node
        self._after = after
        self._told: dict[tuple[str, str], StuckWork] = {}  # by operation and claim
        self.loop = Loop("stuck-work", self._round, limit=_LIMIT_SECONDS, doing="looking for work that is stuck")

    def start(self) -> None:
        self.loop.start()

    def stop(self, timeout: float = 2.0) -> None:
        self.loop.stop(timeout)

    def _round(self) -> float:
        now = {(work.operation, work.claim.uid): work for work in self._find(self._after)}
        for key, work in now.items():
            before = self._told.get(key)
            if before is None or before.step != work.step:
                logger.error("%s", work)
                self._events.event(self._node, EventKind.WARNING, "GpuDoesNotAnswer", f"{work}; {_ADVICE}")
        for key, before in self._told.items():
            if key not in now:
                text = f"{before.operation} of claim {before.claim} is no longer stuck at step '{before.step}'"
                logger.info("%s", text)
                self._events.event(self._node, EventKind.NORMAL, "GpuAnswersAgain", text)
        self._told = now
        return min(_LOOK_SECONDS, self._after)


_ADVICE = "other GPUs of the node are served; look at dmesg for NVRM and Xid, drain the node and reset the GPU"


def stuck_check(find: FindStuck) -> str | None:
    """Readiness: which GPUs do not answer."""
    return "; ".join(map(str, find(TOLD_SECONDS))) or None


class StuckWorkCollector(Collector):
    """``gpu_dra_stuck_seconds`` by GPU: 0 series while all is well."""

    def __init__(self, find: FindStuck) -> None:
        self._find = find

    def collect(self) -> Iterator[Metric]:
        stuck = GaugeMetricFamily(
            "gpu_dra_stuck_seconds",
            f"How long a prepare or unprepare has been at one step, where that is more than {SLOW_SECONDS:.0f} s.",
            labels=["gpu", "operation"],
        )
        waiting = GaugeMetricFamily(
            "gpu_dra_stuck_waiting", "Claims that wait for work which is stuck.", labels=["gpu", "operation"]
        )
        for work in self._find(SLOW_SECONDS):
            for gpu in work.gpus or ("",):
                stuck.add_metric([gpu, work.operation], work.seconds)
                waiting.add_metric([gpu, work.operation], work.waiting)
        yield stuck
        yield waiting
