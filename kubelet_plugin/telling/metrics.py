"""Counts of prepare and unprepare, under the names that NVIDIA's driver uses, and the plugin's own gauges.

NVIDIA's (pkg of its kubelet plugins): ``nvidia_dra_requests_total`` counts successes, ``..._errors_total`` failed
claims by reason; the label values are the words of :mod:`kubelet_plugin.telling.failures`. Ours
begin with ``gpu_dra_``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from kubelet_plugin.claims.model import Failures, Operation
from kubelet_plugin.hardware.watch import HardwareWatch
from kubelet_plugin.telling.failures import metric_label

_BUCKETS = tuple(0.05 * 2**power for power in range(9))  # NVIDIA's


class CallMetrics:
    """A :class:`kubelet_plugin.endpoint.dra_service.CallObserver`."""

    def __init__(self, registry: CollectorRegistry, driver: str) -> None:
        self._driver = driver
        labels = ("driver", "operation")
        requests = Counter(
            "nvidia_dra_requests_total",
            "Prepare and unprepare calls without a failed claim.",
            labels,
            registry=registry,
        )
        duration = Histogram(
            "nvidia_dra_request_duration_seconds",
            "Duration of prepare and unprepare calls.",
            labels,
            buckets=_BUCKETS,
            registry=registry,
        )
        in_flight = Gauge(
            "nvidia_dra_requests_inflight", "Prepare and unprepare calls in progress.", labels, registry=registry
        )
        self._errors = {
            operation: Counter(
                f"nvidia_dra_node_{operation}_errors_total",
                f"Claims whose {operation} failed, by reason.",
                ("driver", "error_type"),
                registry=registry,
            )
            for operation in Operation
        }
        # One child for each operation, made at once: the series exist from the start, so that a rate over the first
        # call is not lost, and a call need not look them up.
        self._in_flight_of = {operation: in_flight.labels(driver, operation) for operation in Operation}
        self._duration_of = {operation: duration.labels(driver, operation) for operation in Operation}
        self._requests_of = {operation: requests.labels(driver, operation) for operation in Operation}

    def started(self, operation: Operation) -> None:
        self._in_flight_of[operation].inc()

    def finished(self, operation: Operation, seconds: float, failures: Failures) -> None:
        self._in_flight_of[operation].dec()
        self._duration_of[operation].observe(seconds)
        if not failures:
            self._requests_of[operation].inc()
        for _, error in failures:
            self._errors[operation].labels(self._driver, metric_label(error)).inc()


class Registration(Protocol):
    """What the kubelet said so far."""

    @property
    def registrations(self) -> int: ...
    @property
    def registered(self) -> bool: ...
    @property
    def refusals(self) -> int: ...


class Connection(Protocol):
    """What is needed of ``endpoint.connection.KubeletConnection``."""

    @property
    def state(self) -> Registration: ...


class PluginCollector(Collector):
    """What the plugin's parts know when asked: hardware, registration, prepared devices."""

    def __init__(
        self,
        node: str,
        driver: str,
        hardware: HardwareWatch,
        connection: Connection,
        prepared_devices: Callable[[], Mapping[str, int]],
    ) -> None:
        """``prepared_devices``: how many devices are prepared, by device type (gpu, mig, vfio)."""
        self._node = node
        self._driver = driver
        self._hardware = hardware
        self._connection = connection
        self._prepared_devices = prepared_devices

    def collect(self) -> Iterator[Metric]:
        prepared = GaugeMetricFamily(
            "nvidia_dra_prepared_devices",
            "Devices that prepared claims hold, by type.",
            labels=["node", "driver", "device_type"],
        )
        for device_type, count in {"gpu": 0, "mig": 0, "vfio": 0, **self._prepared_devices()}.items():
            prepared.add_metric([self._node, self._driver, device_type], count)
        state, hardware = self._connection.state, self._hardware.state
        yield prepared
        yield _gauge("gpu_dra_kubelet_registered", "1 while the kubelet has this plugin registered.", state.registered)
        yield _gauge("gpu_dra_kubelet_registrations", "Times the kubelet registered this plugin.", state.registrations)
        yield _gauge("gpu_dra_kubelet_refusals", "Refusals by the kubelet since the last acceptance.", state.refusals)
        gpus = len(hardware.machine.gpus) if hardware.machine else 0
        yield _gauge("gpu_dra_gpus", "GPUs that can be read.", gpus)
        yield _gauge("gpu_dra_gpus_unreadable", "GPUs that NVML counts but cannot read.", len(hardware.gpu_problems))
        offered = len(hardware.offered.gpus) if hardware.offered else 0
        yield _gauge("gpu_dra_gpus_withheld", "GPUs that can be read and not be given to containers.", gpus - offered)
        yield _gauge(
            "gpu_dra_hardware_ready", "1 while the hardware can be read.", hardware.read and not hardware.problem
        )
        yield _gauge(
            "gpu_dra_hardware_scan_running_seconds",
            "How long the reading in progress has taken.",
            self._hardware.hanging_for(),
        )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))
