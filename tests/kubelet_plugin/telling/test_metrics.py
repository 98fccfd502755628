"""Names, labels and values of the metrics, as a scrape shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry

from dra_driver.errors import ConfigError, DeviceInUse
from dra_driver.hardware.model import Machine
from dra_driver.hardware.nvml import GpuProblem, Reading
from kubelet_plugin.claims.model import ClaimRef, Operation
from kubelet_plugin.endpoint.connection import KubeletConnection
from kubelet_plugin.hardware.watch import HardwareWatch
from kubelet_plugin.telling.metrics import CallMetrics, PluginCollector

DRIVER = "gpu.nvidia.com"
CLAIM = ClaimRef("ns", "name", "uid")


def value(registry: CollectorRegistry, name: str, labels: Mapping[str, str] | None = None) -> float | None:
    return registry.get_sample_value(name, dict(labels or {}))


def test_calls_are_counted_under_nvidias_names() -> None:
    registry = CollectorRegistry()
    metrics = CallMetrics(registry, DRIVER)
    prepare = {"driver": DRIVER, "operation": "prepare"}
    unprepare = {"driver": DRIVER, "operation": "unprepare"}
    assert value(registry, "nvidia_dra_requests_total", unprepare) == 0  # there before the first call

    metrics.started(Operation.PREPARE)
    assert value(registry, "nvidia_dra_requests_inflight", prepare) == 1
    metrics.finished(Operation.PREPARE, 0.07, [])
    metrics.started(Operation.PREPARE)
    metrics.finished(Operation.PREPARE, 0.01, [(CLAIM, DeviceInUse("held")), (CLAIM, ConfigError("wrong"))])
    metrics.started(Operation.UNPREPARE)
    metrics.finished(Operation.UNPREPARE, 0.01, [(CLAIM, DeviceInUse("held"))])

    assert value(registry, "nvidia_dra_requests_inflight", prepare) == 0
    assert value(registry, "nvidia_dra_requests_total", prepare) == 1  # successes only
    assert value(registry, "nvidia_dra_requests_total", unprepare) == 0
    assert value(registry, "nvidia_dra_request_duration_seconds_count", prepare) == 2
    assert value(registry, "nvidia_dra_request_duration_seconds_bucket", {**prepare, "le": "0.05"}) == 1
    assert value(registry, "nvidia_dra_request_duration_seconds_bucket", {**prepare, "le": "12.8"}) == 2
    errors = "nvidia_dra_node_prepare_errors_total"
    assert value(registry, errors, {"driver": DRIVER, "error_type": "DeviceInUse"}) == 1
    assert value(registry, errors, {"driver": DRIVER, "error_type": "InvalidConfig"}) == 1
    assert (
        value(registry, "nvidia_dra_node_unprepare_errors_total", {"driver": DRIVER, "error_type": "DeviceInUse"}) == 1
    )


class Hardware:
    def start(self) -> None:
        """Nothing to load."""

    def stop(self) -> None:
        """Nothing to unload."""

    def read(self) -> Reading:
        return Reading(Machine("580", 13000), (GpuProblem(0, None, None, True, "lost"),))


def test_what_the_parts_know_is_asked_for_at_each_scrape() -> None:
    registry = CollectorRegistry()
    watch, connection, prepared = HardwareWatch(Hardware(), 0), KubeletConnection(Path("/none")), {"gpu": 2}
    registry.register(PluginCollector("node-0", DRIVER, watch, connection, lambda: prepared))
    assert value(registry, "gpu_dra_hardware_ready") == 0
    assert value(registry, "gpu_dra_kubelet_registered") == 0
    connection.refused("no")
    assert value(registry, "gpu_dra_kubelet_refusals") == 1
    connection.accepted()
    watch.scan()
    assert value(registry, "gpu_dra_hardware_ready") == 1
    assert value(registry, "gpu_dra_gpus_unreadable") == 1
    assert value(registry, "gpu_dra_kubelet_registrations") == 1
    labels = {"node": "node-0", "driver": DRIVER}
    assert value(registry, "nvidia_dra_prepared_devices", {**labels, "device_type": "gpu"}) == 2
    assert value(registry, "nvidia_dra_prepared_devices", {**labels, "device_type": "mig"}) == 0
