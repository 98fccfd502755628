"""How a GPU shares its time among processes: the time-slice interval, and the compute mode that lets them share.

The interval has no public function in NVML, so the driver root's nvidia-smi sets and lists it, by the numbers of
``nvidia-smi compute-policy --help``. NVIDIA's driver has it since release 455; GPUs that cannot be preempted within a
kernel have none (kubernetes-sigs/dra-driver-nvidia-gpu#41: Tesla P4). It is lost with the driver's state: by a reboot,
a reset of the GPU, an unloaded module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from api.claim_config import TimeSliceInterval
from dra_driver.errors import HardwareError
from dra_driver.hardware.nvidia_smi import SmiFailed
from dra_driver.hardware.nvml import compute_mode
from dra_driver.hardware.nvml.codes import Return
from dra_driver.hardware.nvml.compute_mode import ComputeMode

NUMBERS: Final[Mapping[TimeSliceInterval, int]] = MappingProxyType(
    {
        TimeSliceInterval.DEFAULT: 0,
        TimeSliceInterval.SHORT: 1,
        TimeSliceInterval.MEDIUM: 2,
        TimeSliceInterval.LONG: 3,
    }
)

# A line of the table that --list prints, one for each GPU: its index, the policy's name, its value.
_LISTED = re.compile(r"^\|\s*\d+\s+timeslice\s+(\w+)\s*\|\s*$", re.IGNORECASE | re.MULTILINE)
_BY_WORD = {str(interval).lower(): interval for interval in TimeSliceInterval}
_NOT_SUPPORTED = "not supported"
_FAILED = "failed to set timeslice"


class TimeSliceUnsupported(HardwareError):
    """The GPU, or its driver, has no time-slice interval that could be set."""

    reason = "TimeSliceUnsupported"
    retryable = False


class RunsSmi(Protocol):
    """``dra_driver.hardware.nvidia_smi.NvidiaSmi`` on a node."""

    def run(self, command: str, *arguments: str) -> str: ...


class ComputePolicy:
    """Asks and changes the hardware; remembers nothing. Thread-safe. Every method raises ``HardwareError``."""

    def __init__(self, smi: RunsSmi) -> None:
        self._smi = smi

    def is_there(self, gpu_uuid: str) -> bool:
        """Whether the GPU can be asked; False when it is lost or was taken out, and all that was set on it with it."""
        return compute_mode.is_there(gpu_uuid)

    def allows_sharing(self, gpu_uuid: str) -> bool:
        """Whether several processes may use the GPU at once (compute mode DEFAULT)."""
        return compute_mode.compute_mode(gpu_uuid) is ComputeMode.DEFAULT

    def allow_sharing(self, gpu_uuid: str) -> None:
        compute_mode.set_compute_mode(gpu_uuid, ComputeMode.DEFAULT)

    def interval(self, gpu_uuid: str) -> TimeSliceInterval | None:
        """As it is now; None when nvidia-smi's answer is not understood. Raises TimeSliceUnsupported."""
        listed = self._run(gpu_uuid, "list", "--list")
        found = [_BY_WORD.get(word.lower()) for word in _LISTED.findall(listed)]
        return found[0] if len(found) == 1 else None

    def set_interval(self, gpu_uuid: str, interval: TimeSliceInterval) -> None:
        """May be repeated. Raises TimeSliceUnsupported."""
        said = self._run(gpu_uuid, "set-timeslice", "--set-timeslice", str(NUMBERS[interval]))
        if _FAILED in said.lower():
            # Whether every release's exit code tells is not known, so its sentence counts as well.
            raise _told(gpu_uuid, SmiFailed(f"nvidia-smi says: {' '.join(said.split())}", code=0, output=said))

    def _run(self, gpu_uuid: str, command: str, *arguments: str) -> str:
        try:
            return self._smi.run(command, "compute-policy", "-i", gpu_uuid, *arguments)
        except SmiFailed as error:
            raise _told(gpu_uuid, error) from error


def _told(gpu_uuid: str, error: SmiFailed) -> HardwareError:
    if error.code == Return.NOT_SUPPORTED or _NOT_SUPPORTED in error.output.lower():
        return TimeSliceUnsupported(
            f"GPU {gpu_uuid} has no time-slice interval that could be set: {error.message}",
            hint="leave sharing out of the claim's configuration: its pods then share the GPU with the driver's "
            "default time slices; or ask for a GPU of a newer architecture",
        )
    return error
