"""How GPUs of a node are shared right now, as the node tells it: MPS groups, their daemons, what is set on GPUs."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from api.claim_config import TimeSliceInterval
from dra_driver.mps.group import folders_of, groups_folder
from e2e.clusters.interface import Cluster
from e2e.kit.driver_pods import STATE
from e2e.kit.expected import DRIVER

PLUGIN_FOLDER = Path("/var/lib/kubelet/plugins", DRIVER)
MPS_FOLDER = groups_folder(PLUGIN_FOLDER)
EXCLUSIVE_PROCESS = 3  # nvmlComputeMode_t; 0 is DEFAULT
# nvidia-smi compute-policy --set-timeslice
INTERVALS = (TimeSliceInterval.DEFAULT, TimeSliceInterval.SHORT, TimeSliceInterval.MEDIUM, TimeSliceInterval.LONG)

_LINE = "---"
_CGROUPS = "gpu-dra-mps"  # of v1 below each controller's root
_READ = f"""
ls -p {MPS_FOLDER} 2>/dev/null
echo {_LINE}
cat /proc/mounts
echo {_LINE}
ls -d /sys/fs/cgroup/{_CGROUPS}/*/ /sys/fs/cgroup/*/{_CGROUPS}/*/ 2>/dev/null
echo {_LINE}
for process in /proc/[0-9]*; do
  command=$(tr '\\0\\n' '  ' <$process/cmdline 2>/dev/null)
  case $command in *mps*control*|*mps*server*|*mps-supervisor*) echo "${{process#/proc/}} $command" ;; esac
done
echo {_LINE}
cat {STATE} 2>/dev/null || true
"""
# The real program, or the simulated one's module; not the shell that hands over a command, nor ours that looks.
_CONTROL = re.compile(r"nvidia-cuda-mps-control .*-[df]\b|hardware\.mps\.control .*-[df]\b")
_SERVER = re.compile(r"^\S*nvidia-cuda-mps-server|hardware\.mps\.server\b")
_SUPERVISOR = re.compile(r"^\S+ \S*bin/gpu-dra-mps-supervisor\b")


@dataclass(frozen=True, slots=True)
class NodeSharing:
    """``groups``: ids of those that have a folder; ``tmpfs``: mount points of groups; ``cgroups``: of their daemons.
    Processes by pid. ``modes`` and ``intervals`` by UUID, of the GPUs where they are not the default; empty where GPUs
    are not simulated."""

    groups: frozenset[str] = frozenset()
    tmpfs: frozenset[str] = frozenset()
    cgroups: frozenset[str] = frozenset()
    daemons: frozenset[int] = frozenset()
    servers: frozenset[int] = frozenset()
    supervisors: frozenset[int] = frozenset()
    modes: Mapping[str, int] = field(default_factory=dict)
    intervals: Mapping[str, TimeSliceInterval] = field(default_factory=dict)

    def left_behind(self, claims: Collection[str]) -> list[str]:
        """What no living claim can be the reason of. ``claims``: UIDs of all that there are."""
        if claims:
            # A group of a claim's own is named after it.
            orphans = {group for group in self.groups if _is_uid(group[:36]) and group[:36] not in claims}
            found = [f"folder of MPS group {group}" for group in sorted(orphans)]
            folders = {str(folders_of(PLUGIN_FOLDER, group).shm) for group in orphans}
            return found + [f"tmpfs {path}" for path in sorted(self.tmpfs & folders)]
        return [
            *(f"folder of MPS group {group}" for group in sorted(self.groups)),
            *(f"tmpfs {path}" for path in sorted(self.tmpfs)),
            *(f"cgroup {path}" for path in sorted(self.cgroups)),
            *(f"MPS daemon {pid}" for pid in sorted(self.daemons)),
            *(f"MPS server {pid}" for pid in sorted(self.servers)),
            *(f"compute mode {mode} of {uuid}" for uuid, mode in sorted(self.modes.items())),
            *(f"time-slice interval {interval} of {uuid}" for uuid, interval in sorted(self.intervals.items())),
        ]


def read_sharing(cluster: Cluster, node: str) -> NodeSharing:
    """Needs ``Ability.RUN_ON_NODE``."""
    return parse(cluster.run_on_node(node, ["sh", "-c", _READ]))


def parse(output: str) -> NodeSharing:
    listing, mounts, cgroups, processes, state = (part.strip() for part in output.split(f"{_LINE}\n", 4))
    paths = {line.split()[1] for line in mounts.splitlines()}
    gpus = json.loads(state)["gpus"] if state else ()
    intervals = {gpu["uuid"]: INTERVALS[gpu.get("timeSlice", 0)] for gpu in gpus}
    return NodeSharing(
        groups=frozenset(name.rstrip("/") for name in listing.split() if name.endswith("/")),
        tmpfs=frozenset(path for path in paths if Path(path).is_relative_to(MPS_FOLDER) and Path(path).name == "shm"),
        cgroups=frozenset(cgroups.split()),
        daemons=_pids(processes, _CONTROL),
        servers=_pids(processes, _SERVER),
        supervisors=_pids(processes, _SUPERVISOR),
        modes={gpu["uuid"]: gpu["computeMode"] for gpu in gpus if gpu.get("computeMode", 0)},
        intervals={uuid: each for uuid, each in intervals.items() if each is not TimeSliceInterval.DEFAULT},
    )


def _pids(processes: str, pattern: re.Pattern[str]) -> frozenset[int]:
    found = (line.partition(" ") for line in processes.splitlines())
    return frozenset(int(pid) for pid, _, command in found if pattern.search(command))


def _is_uid(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) is not None
