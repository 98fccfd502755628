"""How many MPS groups there are, by state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dra_driver.mps.group import GroupState
from kubelet_plugin.kinds.mps.states import GroupStates


class GroupCollector(Collector):
    """``gpu_dra_mps_groups``, as the supervisor told them last."""

    def __init__(self, states: GroupStates) -> None:
        self._states = states

    def collect(self) -> Iterator[Metric]:
        groups = GaugeMetricFamily(
            "gpu_dra_mps_groups",
            "MPS groups as the supervisor told them last, by state.",
            labels=["state"],
        )
        counts = Counter(status.state for status in self._states.groups)
        for state in GroupState:
            groups.add_metric([state], counts[state])
        yield groups
