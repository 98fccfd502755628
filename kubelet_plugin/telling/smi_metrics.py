"""How long the plugin's calls of nvidia-smi take. Apart from prepare's own time: each is a process of NVIDIA's."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram

from dra_driver.hardware.nvidia_smi import CallEnd

_BUCKETS = tuple(0.005 * 2**power for power in range(12))  # 5 ms to 10 s, which is where a call is killed


class SmiMetrics:
    """A :class:`dra_driver.hardware.nvidia_smi.SmiObserver`. Its histogram's count is the number of calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "gpu_dra_nvidia_smi_seconds",
            "Duration of calls of nvidia-smi, by what was asked for and how they ended.",
            ("command", "end"),
            buckets=_BUCKETS,
            registry=registry,
        )

    def called(self, command: str, seconds: float, end: CallEnd) -> None:
        self._seconds.labels(command, end).observe(seconds)
