"""What can be done to the time slices of a GPU. Everything asks the hardware; see ``hardware.mig``."""

from __future__ import annotations

from typing import Protocol

from api.claim_config import TimeSliceInterval


class TimeSliceHardware(Protocol):
    """``dra_driver.hardware.compute_policy.ComputePolicy`` on a node. Thread-safe. All raise ``HardwareError``."""

    def is_there(self, gpu_uuid: str) -> bool:
        """Whether the GPU can be asked; False when it has gone, and with it what was set on it."""
        ...

    def allows_sharing(self, gpu_uuid: str) -> bool:
        """Whether several processes may use it at once."""
        ...

    def allow_sharing(self, gpu_uuid: str) -> None: ...

    def interval(self, gpu_uuid: str) -> TimeSliceInterval | None:
        """As it is now; None when that cannot be told. Raises TimeSliceUnsupported."""
        ...

    def set_interval(self, gpu_uuid: str, interval: TimeSliceInterval) -> None:
        """May be repeated. Raises TimeSliceUnsupported."""
        ...
