"""What earlier supervisors have left: running groups are adopted untouched, everything else that is ours is removed.

A group is adopted when its record says that it ran, in this boot. Whether its daemon still does, the daemon's id and
start time tell, and the first look whether it answers. A group whose daemon is gone is there as dead until it is
stopped, since containers hold its folders. A folder without a record whose pipe folder is not empty is another
driver's. Ours is what else lies in our folder, is mounted there, or carries its name in its environment.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from dra_driver.errors import DriverError
from dra_driver.mps.group import GroupFolders, GroupState, MpsGroup, ShareStatus
from kubelet_plugin.mps_supervisor import record as records
from kubelet_plugin.mps_supervisor.daemon import marked_processes
from kubelet_plugin.mps_supervisor.namespaces import Isolation
from kubelet_plugin.mps_supervisor.record import AnotherVersions, NotARecord, Phase, Record
from kubelet_plugin.mps_supervisor.running import Running

logger = logging.getLogger(__name__)

_KILL_SECONDS = 5.0


class Removes(Protocol):
    """``group_steps.GroupSteps``."""

    def remove(self, group_id: str, drain: float) -> None: ...


def adopt(folder: Path, boot_id: str, steps: Removes, isolation: Isolation) -> tuple[Running, ...]:
    """The groups in ``folder``, with everything else in it removed. What cannot be removed is logged, and a group when
    its record says which. Raises OSError when the folder cannot be read."""
    found, kept = [], set[str]()
    for each in _group_folders(folder):
        if _is_anothers(each):
            logger.warning("%s is left alone: it is in use, and no record says that it is ours", each.root)
            kept.add(str(each.root))
        elif (running := _looked_at(each, boot_id, steps)) is not None:
            found.append(running)
            kept.add(str(each.root))
    for process, root in marked_processes().items():
        if Path(root).parent == folder and root not in kept:
            logger.warning("ending process %d of MPS group %s, which nobody knows", process.pid, Path(root).name)
            process.end(signal.SIGKILL, timeout=_KILL_SECONDS)
    for mounted in isolation.mounted_below(folder):
        # Not the folder itself: so our container has it.
        if mounted != folder and not any(mounted.is_relative_to(root) for root in kept):
            logger.warning("unmounting %s, which belongs to no MPS group", mounted)
            isolation.unmount(mounted)
    return tuple(found)


def _group_folders(folder: Path) -> Iterator[GroupFolders]:
    for each in sorted(folder.iterdir()):
        if each.is_dir() and not each.is_symlink():
            yield GroupFolders(each)


def _is_anothers(folders: GroupFolders) -> bool:
    """NVIDIA's driver has the same layout, and its daemons may be running when this one takes its place. Ours have a
    record before anything else is there, and lose it last."""
    if (folders.root / records.FILE).exists():
        return False
    return folders.pipe.is_dir() and any(folders.pipe.iterdir())


def _looked_at(folders: GroupFolders, boot_id: str, steps: Removes) -> Running | None:
    """The group that is adopted, or that should have been removed and cannot be."""
    try:
        record = records.read(folders)
    except (NotARecord, AnotherVersions) as error:
        logger.warning("%s: %s", folders.root / records.FILE, error)
        record = None
    if record is not None and record.boot_id == boot_id and record.phase is Phase.RUNNING:
        return _adopted(record)
    try:
        steps.remove(folders.root.name, drain=0)
    except (DriverError, OSError) as error:
        logger.warning("%s, of which no group runs, cannot be removed: %s", folders.root, error)
        group = MpsGroup(folders.root.name, ()) if record is None else record.group
        return Running(group, GroupState.DEAD, f"it is not removed: {error}")
    logger.info("removed what was left of MPS group %s", folders.root.name)
    return None


def _adopted(record: Record) -> Running:
    shares = tuple(ShareStatus(each) for each in sorted(record.wanted, key=lambda share: share.name))
    found = Running(record.group, GroupState.DEAD, shares=shares, leaving=record.leaving)
    if record.daemon is not None and record.daemon.alive:
        logger.info("adopted MPS group %s", record.group.id, extra={"pid": record.daemon.pid})
        # The observer looks at its shares, and puts right what a supervisor has left half-way.
        return replace(found, state=GroupState.READY, message="", daemon=record.daemon)
    message = "its daemon ended while no supervisor ran"
    logger.warning("MPS group %s: %s", record.group.id, message)
    return replace(found, message=message)
