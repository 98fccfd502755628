"""What a cluster could leave on a machine: mounts, cgroups, network namespaces, processes, machine-wide settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "net/ipv4/ip_forward",
    "net/netfilter/nf_conntrack_max",
    "fs/nr_open",
    "fs/file-max",
)
_FOLDERS = ("/var/lib", "/opt", "/run", "/run/netns", "/etc", "/lib/modules", "/usr/libexec")
_KERNEL_THREADS = 2  # kthreadd, their parent


@dataclass(frozen=True, slots=True)
class Traces:
    """Sets of lines, so that a difference reads well."""

    mounts: frozenset[str]
    cgroups: frozenset[str]
    namespaces: frozenset[str]
    processes: frozenset[str]
    links: frozenset[str]
    settings: frozenset[str]
    folders: frozenset[str]

    @classmethod
    def now(cls) -> Traces:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return cls(
            mounts=frozenset(_mounts()),
            cgroups=frozenset(folder for folder, _, _ in os.walk("/sys/fs/cgroup")),
            namespaces=frozenset(line for pid in pids for line in _namespace(pid)),
            processes=frozenset(line for pid in pids for line in _process(pid)),
            links=frozenset(os.listdir("/sys/class/net")),
            settings=frozenset(_settings()),
            folders=frozenset(f"{folder}/{name}" for folder in _FOLDERS for name in _names(folder)),
        )

    def added_since(self, before: Traces) -> dict[str, list[str]]:
        """What is here now and was not then, by kind; empty when nothing is."""
        found = {}
        for field in fields(self):
            new = sorted(getattr(self, field.name) - getattr(before, field.name))
            if new:
                found[field.name] = new
        return found


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        _, _, _, root, place, *_ = line.split()
        yield f"{root} on {place}"


def _namespace(pid: int) -> Iterator[str]:
    try:
        yield os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return  # it ended, or is a kernel thread of another kind


def _process(pid: int) -> Iterator[str]:
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return
    if _KERNEL_THREADS not in (pid, int(status[1])) and status[0] != "Z":
        yield f"{pid} {command}"


def _settings() -> Iterator[str]:
    for name in _SETTINGS:
        path = Path("/proc/sys", name)
        if path.exists():
            yield f"{name} = {path.read_text().strip()}"


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
