"""The supervisor's metrics: what happened, counted, and how the groups are, when asked."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dra_driver.mps.group import GroupState
from kubelet_plugin.mps_supervisor.looks import Look
from kubelet_plugin.mps_supervisor.running import Running

_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_CONTROL_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 3.0)  # 3 s is what most may take


class SupervisorMetrics:
    """Counts for ``supervisor``, ``observer`` and ``control``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._starts = Histogram(
            "gpu_dra_mps_start_seconds",
            "From the wish for a group to its daemon's first answer.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self._control = Histogram(
            "gpu_dra_mps_control_seconds",
            "Duration of runs of nvidia-cuda-mps-control that ask a daemon something.",
            buckets=_CONTROL_BUCKETS,
            registry=registry,
        )
        self._failures = Counter(
            "gpu_dra_mps_failures", "Starts and stops of groups that failed.", ["reason"], registry=registry
        )
        self._recycles = Counter("gpu_dra_mps_recycles", "Wedged daemons that were started anew.", registry=registry)
        self._looks = Counter(
            "gpu_dra_mps_looks",
            "Looks at daemons, by what was found: answered, silent (the daemon), fault or stuck (a server).",
            ["found"],
            registry=registry,
        )
        self._canaries = Counter(
            "gpu_dra_mps_canary_runs", "Runs of the canary program, through or not.", ["result"], registry=registry
        )

    def started(self, seconds: float) -> None:
        self._starts.observe(seconds)

    def asked(self, seconds: float) -> None:
        self._control.observe(seconds)

    def failed(self, reason: str) -> None:
        self._failures.labels(reason).inc()

    def recycled(self) -> None:
        self._recycles.inc()

    def looked(self, look: Look) -> None:
        self._looks.labels(_found(look)).inc()
        if look.canary is not None:
            self._canaries.labels("failed" if look.canary else "through").inc()


class GroupCollector(Collector):
    """``gpu_dra_mps_groups`` by state, clients, and whether daemons are in a cgroup of their own."""

    def __init__(self, groups: Callable[[], Iterable[Running]], cgroup_problem: Callable[[], str]) -> None:
        self._groups = groups
        self._cgroup_problem = cgroup_problem

    def collect(self) -> Iterator[Metric]:
        found = tuple(self._groups())
        by_state = Tally(running.state for running in found)
        groups = GaugeMetricFamily("gpu_dra_mps_groups", "MPS groups by state.", labels=["state"])
        for state in GroupState:
            groups.add_metric([state.value], by_state[state])
        yield groups
        clients = sum(len(running.clients) for running in found)
        yield GaugeMetricFamily("gpu_dra_mps_clients", "Clients of all MPS servers, at the last look.", value=clients)
        shares = GaugeMetricFamily(
            "gpu_dra_mps_shares", "Shares of groups of MPS protocol 3, by whether their limits hold.", labels=["limits"]
        )
        wrong = sum(bool(each.message) for running in found for each in running.shares)
        shares.add_metric(["hold"], sum(len(running.shares) for running in found) - wrong)
        shares.add_metric(["broken"], wrong)
        yield shares
        yield GaugeMetricFamily(
            "gpu_dra_mps_own_cgroups",
            "1 when daemons outlive this container; 0 when the last one could not be moved to a cgroup of its own.",
            value=0 if self._cgroup_problem() else 1,
        )


def _found(look: Look) -> str:
    if look.answer is not None:
        return "silent"
    statuses = look.servers.values()
    if None in statuses:
        return "stuck"
    return "fault" if "FAULT" in statuses else "answered"
