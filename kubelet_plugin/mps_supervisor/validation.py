"""What is refused before anything is done. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dra_driver.hardware.nvml.compute_device import ComputeDevice
from dra_driver.mps.errors import GroupRefused
from dra_driver.mps.group import MpsGroup

_ID = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MULTI_USER_FROM = (7, 0)  # Volta: servers that serve clients of several users (NVIDIA's MPS documentation)


def check_id(group_id: str) -> str:
    """``group_id``, if it can name a folder of ours. Raises GroupRefused."""
    if not _ID.fullmatch(group_id):
        raise GroupRefused(
            f"id of MPS group {group_id!r} must be at most 63 lower case letters, digits and dashes, none at an end"
        )
    return group_id


def check(group: MpsGroup, found: Mapping[str, ComputeDevice | None]) -> None:
    """``found``: what there is under the UUIDs that the group names. Raises GroupRefused naming field and value."""
    check_id(group.id)
    if not group.devices:
        raise GroupRefused(f"{_of(group)} has no devices")
    if len(set(group.devices)) != len(group.devices):
        raise GroupRefused(f"{_of(group)}: devices name one device twice")
    for uuid in group.devices:
        if found.get(uuid) is None:
            raise GroupRefused(
                f"{_of(group)}: device {uuid} is not on this node (any more)", hint="nvidia-smi -L lists those that are"
            )
    _check_exclusive(group, found)
    _check_percentage(group)
    for uuid, limit in group.pinned_memory_mib.items():
        _check_limit(group, uuid, limit, found)
    if group.multi_user:
        _check_multi_user(group, found)


def _check_exclusive(group: MpsGroup, found: Mapping[str, ComputeDevice | None]) -> None:
    for uuid in group.exclusive_gpus:
        device = found.get(uuid)
        if uuid not in group.devices or device is None:
            raise GroupRefused(f"{_of(group)}: exclusive GPU {uuid} is not one of its devices")
        if device.is_mig:
            raise GroupRefused(f"{_of(group)}: {uuid} is a MIG device, which has no compute mode of its own")


def _check_percentage(group: MpsGroup) -> None:
    percentage = group.active_thread_percentage
    if percentage is not None and not 1 <= percentage <= 100:
        raise GroupRefused(
            f"{_of(group)}: active thread percentage {percentage} must be 1 to 100",
            hint="with 0 % no client could run anything; leave it out for no limit",
        )


def _check_limit(group: MpsGroup, uuid: str, limit: int, found: Mapping[str, ComputeDevice | None]) -> None:
    device = found.get(uuid)
    if uuid not in group.devices or device is None:
        raise GroupRefused(f"{_of(group)}: pinned memory limit of {uuid}, which is not one of its devices")
    if limit < 1:
        raise GroupRefused(f"{_of(group)}: pinned memory limit of {uuid} is {limit} MiB, it must be 1 MiB or more")
    if device.memory_mib is not None and limit > device.memory_mib:
        raise GroupRefused(
            f"{_of(group)}: pinned memory limit of {uuid} is {limit} MiB, the device has {device.memory_mib} MiB"
        )


def _check_multi_user(group: MpsGroup, found: Mapping[str, ComputeDevice | None]) -> None:
    for uuid in group.devices:
        device = found.get(uuid)
        if device is not None and device.compute_capability < _MULTI_USER_FROM:
            major, minor = device.compute_capability
            raise GroupRefused(
                f"{_of(group)}: multi-user MPS needs compute capability 7.0, {uuid} has {major}.{minor}",
                hint="leave multiUser out",
            )


def _of(group: MpsGroup) -> str:
    return f"MPS group {group.id}"
