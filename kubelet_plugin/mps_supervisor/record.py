"""What is on disk about a group: enough to remove all of it, and to find its daemon again.

``<group's folder>/group.json``, replaced as a whole. It is there before anything else is made for the group, and goes
last. It needs not survive a power cut: after a reboot nothing that it speaks of is left.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from dra_driver.files import Durability, write_atomically
from dra_driver.mps.group import RECORD, GroupFolders, MpsGroup
from dra_driver.processes import Process

FILE: Final = RECORD
_VERSION: Final = 1


class Phase(StrEnum):
    """How far the group had come. Only a RUNNING one may have clients."""

    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"


@dataclass(frozen=True, slots=True)
class Record:
    boot_id: str
    group: MpsGroup
    phase: Phase
    daemon: Process | None = None


class NotARecord(Exception):
    """The file is damaged; its text says how."""


class AnotherVersions(Exception):
    """A supervisor of another version wrote it, and knows what there is; its text says which."""


def write(folders: GroupFolders, record: Record) -> None:
    """Raises OSError."""
    group, daemon = record.group, record.daemon
    data = {
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
    write_atomically(folders.root / FILE, json.dumps(data).encode(), mode=0o600, durability=Durability.NONE)


def read(folders: GroupFolders) -> Record | None:
    """None where there is none. Raises NotARecord, AnotherVersions, OSError."""
    try:
        text = (folders.root / FILE).read_bytes()
    except FileNotFoundError:
        return None
    try:
        data = json.loads(text)
        if data["version"] != _VERSION:
            raise AnotherVersions(f"it is of version {data['version']}, this supervisor knows {_VERSION}")
        return Record(data["bootID"], _group(data["group"]), Phase(data["phase"]), _daemon(data["daemon"]))
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
    )


def _daemon(data: dict[str, int] | None) -> Process | None:
    return None if data is None else Process(data["pid"], data["started"])
