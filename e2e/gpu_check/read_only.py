"""The real libnvidia-ml behind a door: functions that read and those of event sets pass, nothing else exists.

pynvml reports an attribute that is not there as "function not found". So a mistake in the check, or in the code that it
tries, ends as an answer in the report and never as a change of somebody's GPU.
"""

from __future__ import annotations

import re
from typing import Any

from dra_driver.hardware.nvml import binding

# What nvml.h names Get and Is reads. An event set is this process's own, and ends with it.
_READS = re.compile(
    r"nvml(?:System|Device|GpuInstance|ComputeInstance)(?:Get|Is)\w+"
    r"|nvmlInit_v2|nvmlInitWithFlags|nvmlShutdown|nvmlErrorString"
    r"|nvmlEventSetCreate|nvmlDeviceRegisterEvents|nvmlEventSetWait_v2|nvmlEventSetFree"
)


def reads_only(function: str) -> bool:
    """Whether NVML's C function of this name changes nothing outside this process."""
    return _READS.fullmatch(function) is not None


class ReadOnlyLibrary:
    """Stands in the place of the library that it holds."""

    def __init__(self, library: object) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        # Python asks here only for what is not a real attribute; pynvml caches what it gets.
        if not reads_only(name):
            raise AttributeError(name)
        return getattr(self._library, name)


def guard() -> None:
    """From now on this process reads and does no more. The library must be loaded, and nobody may be using it."""
    binding.replace(ReadOnlyLibrary(binding.library()))
