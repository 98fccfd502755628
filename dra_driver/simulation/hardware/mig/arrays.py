"""Lists in a caller's array, as NVML's MIG functions give them: placements, and handles of instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware.arguments import Refused, set_address, target
from dra_driver.simulation.hardware.handles import Handles, Target


def write_placements(placements: Any, count: Any, starts: Sequence[int], size: int) -> None:
    """One placement per start. ``count`` says how much room there is, and then how much there must be.

    NULL for ``placements`` asks only for that.
    """
    room = target(count)
    available, room.value = room.value, len(starts)
    if placements is None:
        return
    if min(available, len(placements)) < len(starts):
        raise Refused(Return.INSUFFICIENT_SIZE)
    for slot, start in zip(placements, starts, strict=False):
        slot.start, slot.size = start, size


def write_handles(handles: Handles, instances: Any, count: Any, found: Sequence[Target]) -> None:
    """A handle for each of ``found``; NVML has no other word for the array's length than the profile's count."""
    if instances is None:
        raise Refused(Return.INVALID_ARGUMENT)
    if len(instances) < len(found):
        raise Refused(Return.INSUFFICIENT_SIZE)
    for position, each in enumerate(found):
        # instances[position] is a view of the caller's array, so that writing it writes the array
        set_address(instances[position], handles.address(each))
    target(count).value = len(found)
