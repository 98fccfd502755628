"""Time slices in memory; kept honest by test_time_slice_hardware.py."""

from __future__ import annotations

from collections import defaultdict

from api.claim_config import TimeSliceInterval
from dra_driver.errors import HardwareError
from dra_driver.hardware.compute_policy import TimeSliceUnsupported


class FakeTimeSlices:
    """A ``kubelet_plugin.hardware.time_slices.TimeSliceHardware``.

    ``exclusive``: GPUs in a mode that lets one process in. ``unsupported``: GPUs without an interval. ``gone``: GPUs
    that are lost.
    """

    def __init__(self) -> None:
        self.intervals: defaultdict[str, TimeSliceInterval] = defaultdict(lambda: TimeSliceInterval.DEFAULT)
        self.exclusive: set[str] = set()
        self.unsupported: set[str] = set()
        self.gone: set[str] = set()

    def is_there(self, gpu_uuid: str) -> bool:
        return gpu_uuid not in self.gone

    def allows_sharing(self, gpu_uuid: str) -> bool:
        self._require(gpu_uuid)
        return gpu_uuid not in self.exclusive

    def allow_sharing(self, gpu_uuid: str) -> None:
        self._require(gpu_uuid)
        self.exclusive.discard(gpu_uuid)

    def interval(self, gpu_uuid: str) -> TimeSliceInterval | None:
        self._require(gpu_uuid)
        self._require_interval(gpu_uuid)
        return self.intervals[gpu_uuid]

    def set_interval(self, gpu_uuid: str, interval: TimeSliceInterval) -> None:
        self._require(gpu_uuid)
        self._require_interval(gpu_uuid)
        self.intervals[gpu_uuid] = interval

    def _require(self, gpu_uuid: str) -> None:
        if gpu_uuid in self.gone:
            raise HardwareError(f"GPU {gpu_uuid} is lost")

    def _require_interval(self, gpu_uuid: str) -> None:
        if gpu_uuid in self.unsupported:
            raise TimeSliceUnsupported(f"GPU {gpu_uuid} has no time-slice interval that could be set")
