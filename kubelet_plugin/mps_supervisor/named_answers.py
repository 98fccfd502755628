"""Protocol 3 in words: what is said to a daemon about servers and shares, and what its answers mean. Pure.

Commands and columns are those of NVIDIA's MPS v3 Interface. What it leaves open is read so that a limit is never
believed in without a reason: of a server's states only "Ready" is in the pages, so it is the only one that counts; a
size that is no number is no limit; devices are looked for by UUID, whatever stands between them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dra_driver.mps.group import SERVER, MpsGroup, MpsShare

CSV = "--format=csv,noheader"
SERVERS = ("server", "list", CSV)
SHARES = ("namespace", "list", f"--server={SERVER}", CSV)
CLIENTS = ("client", "list", f"--server={SERVER}", CSV)
QUIT = ("-q",)
DELETE_SERVER = ("server", "delete", SERVER)
READY = "Ready"
DEFAULT = "default"

_UUID = re.compile(r"(?:GPU|MIG)-[0-9a-fA-F-]+")
_SIZE = re.compile(r"([0-9]+) ?([KMG])(?:i?B)?")
_KIB = {"K": 1, "M": 2**10, "G": 2**20}
_KIB_IN_MIB = 2**10


@dataclass(frozen=True, slots=True)
class SeenServer:
    pid: int
    status: str
    devices: frozenset[str]


@dataclass(frozen=True, slots=True)
class SeenShare:
    """``memory_kib`` and ``percentage``: None for no limit."""

    memory_kib: int | None
    percentage: float | None
    priority: str


def create_server(group: MpsGroup) -> tuple[str, ...]:
    """In multi-user mode the server is root's; else its owner is who asks, which is the default."""
    owner = ("--uid=0",) if group.multi_user else ()
    return ("server", "create", SERVER, *owner, f"--allowed-devices={','.join(group.devices)}")


def create_share(name: str) -> tuple[str, ...]:
    return ("namespace", "create", name, f"--server={SERVER}")


def delete_share(name: str) -> tuple[str, ...]:
    """By force: whoever removes a share has ended its clients, as far as they could be ended."""
    return ("namespace", "delete", name, f"--server={SERVER}", "--force")


def limit_share(share: MpsShare) -> tuple[str, ...]:
    memory, percentage = memory_mib(share), share.active_thread_percentage
    return (
        "namespace",
        "set",
        share.name,
        f"--server={SERVER}",
        *(() if memory is None else (f"--pinned-memory-limit={memory}M",)),
        *(() if percentage is None else (f"--active-thread-percentage={percentage}",)),
        f"--client-priority={int(share.low_priority)}",
    )


def memory_mib(share: MpsShare) -> int | None:
    """The one size of all its devices (``validation`` sees to that)."""
    return min(share.pinned_memory_mib.values(), default=None)


def server_of(lines: Sequence[str]) -> SeenServer | None:
    """Ours, of ``SERVERS``: name, uid, pid, status, pipe-directory, allowed-devices, context-ids."""
    for line in lines:
        fields = _fields(line)
        if len(fields) >= 6 and fields[0] == SERVER and fields[2].isdigit():
            return SeenServer(int(fields[2]), fields[3], frozenset(_UUID.findall(" ".join(fields[5:]))))
    return None


def shares_of(lines: Sequence[str]) -> Mapping[str, SeenShare]:
    """By name, of ``SHARES``: name, server, server-status, the three limits, pipe-directory."""
    rows = [fields for fields in map(_fields, lines) if len(fields) >= 7 and fields[1] == SERVER]
    return {row[0]: SeenShare(_kib(row[3]), _number(row[4]), row[5]) for row in rows if row[0] != DEFAULT}


def clients_of(lines: Sequence[str]) -> frozenset[int]:
    """Process ids, the first field of ``CLIENTS``."""
    return frozenset(int(fields[0]) for fields in map(_fields, lines) if fields and fields[0].isdigit())


def server_problem(group: MpsGroup, seen: SeenServer | None) -> str:
    """Empty when it serves the devices of the group."""
    if seen is None:
        return f"MPS server {SERVER} is gone"
    if seen.status != READY:
        return f"MPS server {SERVER} is in status {seen.status}"
    missing = sorted(set(group.devices) - seen.devices)
    return f"MPS server {SERVER} does not have device {missing[0]}" if missing else ""


def share_problem(share: MpsShare, seen: SeenShare | None) -> str:
    """Empty when its limits are as wanted."""
    if seen is None:
        return "it is gone from the daemon"
    memory = memory_mib(share)
    if seen.memory_kib != (None if memory is None else memory * _KIB_IN_MIB):
        return (
            f"its pinned memory limit is {_size(seen.memory_kib)}, not {'none' if memory is None else f'{memory} MiB'}"
        )
    wanted = share.active_thread_percentage
    if (seen.percentage or 100) != (wanted or 100):
        return f"its active thread percentage is {seen.percentage or 'none'}, not {wanted or 'none'}"
    if seen.priority != str(int(share.low_priority)):
        return f"its client priority is {seen.priority}, not {int(share.low_priority)}"
    return ""


def _fields(line: str) -> list[str]:
    return [each.strip() for each in next(csv.reader([line]), [])]


def _kib(text: str) -> int | None:
    match = _SIZE.fullmatch(text)
    return int(match[1]) * _KIB[match[2]] if match and int(match[1]) else None


def _number(text: str) -> float | None:
    try:
        return float(text) or None
    except ValueError:
        return None


def _size(kib: int | None) -> str:
    return "none" if kib is None else f"{kib} KiB" if kib % _KIB_IN_MIB else f"{kib // _KIB_IN_MIB} MiB"
