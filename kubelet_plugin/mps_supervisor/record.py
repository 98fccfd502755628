"""What is on disk about a group: enough to remove all of it, and to find its daemon again.

``<group's folder>/group.json``, replaced as a whole. It is there before anything else is made for the group, and goes
last. It needs not survive a power cut: after a reboot nothing that it speaks of is left.

Version 2 is for groups of MPS protocol 3 only: a supervisor that does not know it leaves them alone, and every other
group is written as ever.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from dra_driver.files import Durability, write_atomically
from dra_driver.mps.group import LEGACY, RECORD, GroupFolders, MpsGroup, MpsShare
from dra_driver.processes import Process

FILE: Final = RECORD
_VERSION: Final = 1
_WITH_SHARES: Final = 2


class Phase(StrEnum):
    """How far the group had come. Only a RUNNING one may have clients."""

    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"


@dataclass(frozen=True, slots=True)
class Record:
    """``shares``: what may be there of them. ``leaving``: those of them that are being removed, by name."""

    boot_id: str
    group: MpsGroup
    phase: Phase
    daemon: Process | None = None
    shares: tuple[MpsShare, ...] = ()
    leaving: frozenset[str] = frozenset()

    @property
    def wanted(self) -> tuple[MpsShare, ...]:
        """The shares that are to be there."""
        return tuple(each for each in self.shares if each.name not in self.leaving)


class NotARecord(Exception):
    """The file is damaged; its text says how."""


class AnotherVersions(Exception):
    """A supervisor of another version wrote it, and knows what there is; its text says which."""


def write(folders: GroupFolders, record: Record) -> None:
    """Raises OSError."""
    group, daemon = record.group, record.daemon
    data: dict[str, Any] = {
        "version": _VERSION,
        "bootID": record.boot_id,
        "phase": record.phase.value,
        "group": {
            "id": group.id,
            "devices": group.devices,
            "exclusiveGPUs": group.exclusive_gpus,
            "activeThreadPercentage": group.active_thread_percentage,
            "pinnedMemoryMiB": dict(group.pinned_memory_mib),
            "multiUser": group.multi_user,
        },
        "daemon": None if daemon is None else {"pid": daemon.pid, "started": daemon.started},
    }
    if group.serve:
        data["group"]["serve"] = True
    if group.protocol != LEGACY:
        data["version"] = _WITH_SHARES
        data["group"]["protocol"] = group.protocol
        data["shares"] = [
            {
                "name": share.name,
                "pinnedMemoryMiB": dict(share.pinned_memory_mib),
                "activeThreadPercentage": share.active_thread_percentage,
                "lowPriority": share.low_priority,
            }
            for share in record.shares
        ]
        data["leaving"] = sorted(record.leaving)
    write_atomically(folders.root / FILE, json.dumps(data).encode(), mode=0o600, durability=Durability.NONE)


def read(folders: GroupFolders) -> Record | None:
    """None where there is none. Raises NotARecord, AnotherVersions, OSError."""
    try:
        text = (folders.root / FILE).read_bytes()
    except FileNotFoundError:
        return None
    try:
        data = json.loads(text)
        if data["version"] not in (_VERSION, _WITH_SHARES):
            raise AnotherVersions(
                f"it is of version {data['version']}, this supervisor knows {_VERSION} and {_WITH_SHARES}"
            )
        record = Record(data["bootID"], _group(data["group"]), Phase(data["phase"]), _daemon(data["daemon"]))
        if data["version"] == _VERSION:
            return record
        shares = tuple(_share(each) for each in data["shares"])
        return replace(record, shares=shares, leaving=frozenset(data["leaving"]))
    except (ValueError, KeyError, TypeError) as error:
        raise NotARecord(f"it is damaged: {type(error).__name__}: {error}") from error


def _group(data: dict[str, Any]) -> MpsGroup:
    return MpsGroup(
        id=data["id"],
        devices=tuple(data["devices"]),
        exclusive_gpus=tuple(data["exclusiveGPUs"]),
        active_thread_percentage=data["activeThreadPercentage"],
        pinned_memory_mib=data["pinnedMemoryMiB"],
        multi_user=data["multiUser"],
        protocol=data.get("protocol", LEGACY),
        serve=data.get("serve", False),
    )


def _share(data: dict[str, Any]) -> MpsShare:
    return MpsShare(
        name=data["name"],
        pinned_memory_mib=data["pinnedMemoryMiB"],
        active_thread_percentage=data["activeThreadPercentage"],
        low_priority=data["lowPriority"],
    )


def _daemon(data: dict[str, int] | None) -> Process | None:
    return None if data is None else Process(data["pid"], data["started"])
