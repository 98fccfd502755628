"""The controller's metrics, ``gpu_dra_controller_*``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class ControllerMetrics:
    """Registered in ``registry`` when made."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.slice_writes = Counter(
            "gpu_dra_controller_slice_writes", "ResourceSlices written, by verb.", ["verb"], registry=registry
        )
        self.reconcile_seconds = Histogram(
            "gpu_dra_controller_reconcile_duration_seconds",
            "Time to look at one node's pool, writes included.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self.problems = Counter(
            "gpu_dra_controller_problems", "Problems found with a node's pool.", ["reason"], registry=registry
        )
        self.wipes = Counter(
            "gpu_dra_controller_wipes", "ResourceSlices that somebody else deleted.", registry=registry
        )
        self.challenges = Counter(
            "gpu_dra_controller_challenges", "Challenges written to NodeInventories.", registry=registry
        )
        self.challenges_outstanding = Gauge(
            "gpu_dra_controller_challenges_outstanding", "Nodes whose plugin has yet to answer.", registry=registry
        )
        self.nodes = Gauge("gpu_dra_controller_nodes", "Nodes with a NodeInventory.", registry=registry)
        self.pools = Gauge("gpu_dra_controller_pools", "Pools that are published as desired.", registry=registry)
        self.devices = Gauge("gpu_dra_controller_devices", "Devices in those pools.", registry=registry)
        self.leader = Gauge("gpu_dra_controller_leader", "1 while this process leads.", registry=registry)
