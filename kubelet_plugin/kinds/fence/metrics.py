"""What each fraction may have, and whether it is held to that, as metrics: one series a share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from kubelet_plugin.claims.model import ClaimRef
from kubelet_plugin.kinds.fence.status import FenceState

_LABELS = ("device", "gpu", "share_id", "namespace", "claim", "backend")


class FenceCollector(Collector):
    """``gpu_dra_fraction_*``. ``states``: of the fractions of prepared claims, as last told."""

    def __init__(self, states: Callable[[], Iterable[tuple[ClaimRef, FenceState]]]) -> None:
        self._states = states

    def collect(self) -> Iterator[Metric]:
        memory = GaugeMetricFamily(
            "gpu_dra_fraction_memory_bytes", "Memory that is counted for a fraction.", labels=_LABELS
        )
        limit = GaugeMetricFamily(
            "gpu_dra_fraction_memory_limit_bytes",
            "Memory that a fraction may use: more than is counted where its claim is elastic.",
            labels=_LABELS,
        )
        compute = GaugeMetricFamily(
            "gpu_dra_fraction_compute_percent",
            "Multiprocessors that are counted for a fraction; 0: no ceiling.",
            labels=_LABELS,
        )
        enforced = GaugeMetricFamily(
            "gpu_dra_fraction_enforced", "1 while something holds the fraction to its limits.", labels=_LABELS
        )
        for claim, state in self._states():
            fence = state.fence
            values = (fence.device, fence.gpu_uuid, fence.share_id, claim.namespace, claim.name, fence.backend.value)
            memory.add_metric(values, fence.memory)
            limit.add_metric(values, fence.memory_limit)
            compute.add_metric(values, fence.compute)
            enforced.add_metric(values, float(state.status == "True"))
        yield from (memory, limit, compute, enforced)
