"""What is refused before anything is done. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from dra_driver.hardware.nvml.compute_device import ComputeDevice
from dra_driver.mps.errors import GroupRefused
from dra_driver.mps.group import LEGACY, NAMED, MpsGroup, MpsShare

_ID = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SHARE = re.compile(r"[a-z0-9_]{1,64}")  # MPS v3 Interface, CLI Command Structure
# Files of a server's folder (MPS v3 Namespaces; MPS v3 Interface, Directories), and its built-in namespace.
_TAKEN = ("default", "control", "log")
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
    if group.protocol != LEGACY:
        _check_named(group, found)


def check_protocol(group: MpsGroup, spoken: Collection[int]) -> None:
    """``spoken``: the protocols of the node's MPS programs. Raises GroupRefused."""
    if group.protocol not in spoken:
        raise GroupRefused(
            f"{_of(group)}: the nvidia-cuda-mps-control of this node does not know protocol {group.protocol}",
            hint="protocol 3 (MPS v3) came with driver r615, CUDA 13.4",
        )


def check_share(group: MpsGroup, share: MpsShare, found: Mapping[str, ComputeDevice | None]) -> None:
    """``found``: the devices of the group that runs. Raises GroupRefused naming field and value."""
    of = f"{_of(group)}, share {share.name}"
    if group.protocol != NAMED:
        raise GroupRefused(f"{of}: the group has protocol {group.protocol}, shares come with {NAMED}")
    if not _SHARE.fullmatch(share.name) or share.name in _TAKEN:
        raise GroupRefused(
            f"{_of(group)}: name of share {share.name!r} must be at most 64 lower case letters, digits and "
            f"underscores, and none of {', '.join(_TAKEN)}"
        )
    percentage = share.active_thread_percentage
    if percentage is not None and not 1 <= percentage <= 100:
        raise GroupRefused(f"{of}: active thread percentage {percentage} must be 1 to 100", hint="none is no limit")
    for uuid, limit in share.pinned_memory_mib.items():
        _check_limit(group, uuid, limit, found)
    if len(set(share.pinned_memory_mib.values())) > 1:
        raise GroupRefused(
            f"{of}: pinned memory limits {dict(share.pinned_memory_mib)} differ, MPS protocol 3 has one for all",
            hint="use one size, or a group for each device",
        )


def _check_named(group: MpsGroup, found: Mapping[str, ComputeDevice | None]) -> None:
    if group.protocol != NAMED:
        raise GroupRefused(f"{_of(group)}: MPS protocol {group.protocol} is none of {LEGACY} and {NAMED}")
    if group.active_thread_percentage is not None or group.pinned_memory_mib:
        raise GroupRefused(f"{_of(group)}: with MPS protocol {NAMED} limits are those of its shares, not of the group")
    for uuid in group.devices:
        device = found.get(uuid)
        # NVIDIA Dynamo, "Per-GPU Compute and Memory Limits with MPS", Requirements.
        if device is not None and device.is_mig:
            raise GroupRefused(f"{_of(group)}: {uuid} is a MIG device, for which there is no MPS protocol {NAMED}")
    _check_multi_user(group, found)  # the same GPUs: MPS before Volta has no such server


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
