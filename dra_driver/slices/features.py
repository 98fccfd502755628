"""What the API server can hold of a ResourceSlice; a value that the controller finds out by probing and by echo.

A server whose feature gate is off drops the field without an error, which would make overlapping devices look
independent. So slices only ever hold what is known to stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

_INDEX = re.compile(r"\[[^\]]*\]")


@dataclass(frozen=True, slots=True)
class ApiFeatures:
    """Defaults are those of Kubernetes 1.36 and later."""

    combined_counters: bool = False  # counter sets live beside their devices (1.34); apart from them since 1.35
    partitionable: bool = True  # sharedCounters, consumesCounters (DRAPartitionableDevices)
    taints: bool = True  # taints of devices (DRADeviceTaints)
    consumable: bool = True  # allowMultipleAllocations, requestPolicy (DRAConsumableCapacity)

    def without(self, dropped: Iterable[str]) -> ApiFeatures:
        """These features less those whose fields the server dropped (paths as ``diff.dropped_fields`` lists them)."""
        words = {word for path in dropped for word in _INDEX.sub("", path).split(".")}
        return replace(
            self,
            partitionable=self.partitionable and not words & {"sharedCounters", "consumesCounters"},
            taints=self.taints and "taints" not in words,
            consumable=self.consumable and not words & {"allowMultipleAllocations", "requestPolicy"},
        )
