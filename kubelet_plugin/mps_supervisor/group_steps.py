"""What is made for a group and its shares, in order, and how all of it is removed.

The record comes first and goes last, so that whoever finds it knows what may be there; :meth:`GroupSteps.remove` works
from any point in between, and again. Layout, modes and tmpfs are those of NVIDIA's driver (its
cmd/gpu-kubelet-plugin/sharing.go).

A share is in the record before it is made and goes from there last. One that is being removed is noted as leaving, so
that the next supervisor goes on with it.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dra_driver.errors import DriverError
from dra_driver.mps.errors import GroupFailed
from dra_driver.mps.group import LEGACY, GroupFolders, MpsGroup, MpsShare
from dra_driver.processes import Process
from kubelet_plugin.mps_supervisor import record as records
from kubelet_plugin.mps_supervisor.cgroups import OwnCgroups, cgroup_of
from kubelet_plugin.mps_supervisor.daemon import Daemons
from kubelet_plugin.mps_supervisor.gpus import Gpus
from kubelet_plugin.mps_supervisor.namespaces import Isolation
from kubelet_plugin.mps_supervisor.probe import Protocols
from kubelet_plugin.mps_supervisor.record import AnotherVersions, NotARecord, Phase, Record

logger = logging.getLogger(__name__)

_FOLDER_MODE = 0o755
_FALLBACK_KIB = 65536
_MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class Tools:
    """What acts on the node."""

    gpus: Gpus
    isolation: Isolation
    cgroups: OwnCgroups
    daemons: Daemons
    protocols: Protocols


class GroupSteps:
    """For different groups at once. ``folder`` holds the groups' folders; records have what ``boot_id`` returns."""

    def __init__(self, folder: Path, boot_id: Callable[[], str], tools: Tools) -> None:
        self._folder = folder
        self._boot_id = boot_id
        self._tools = tools
        self.cgroup_problem = ""  # why daemons end with our container, for people

    def folders(self, group_id: str) -> GroupFolders:
        return GroupFolders(self._folder / group_id)

    def start(self, group: MpsGroup, until: float, given_up: threading.Event) -> Process:
        """All of it is made; the daemon, which has answered. What was made stays when something fails.

        A group that runs gets another daemon, in the folders that containers have. Raises DriverError, OSError.
        """
        folders = self.folders(group.id)
        is_new = _make_folder(folders.root)
        known = None if is_new else self._record(folders)
        ran = known is not None and known.phase is Phase.RUNNING and known.boot_id == self._boot_id()
        record = Record(
            self._boot_id(),
            group,
            Phase.RUNNING if ran else Phase.STARTING,
            shares=known.wanted if ran and known is not None else (),
        )
        if not is_new:  # or nothing runs: a folder is there before its daemon, and goes after it
            self._tools.daemons.end(folders, self._daemon_of(known), drain=0, protocol=_protocol(known))
        records.write(folders, record)
        for folder in (folders.pipe, folders.log, folders.shm):
            _make_folder(folder)
        self._tools.isolation.mount_tmpfs(folders.shm, shm_kib(_MEMORY.read_text()))
        for gpu in group.exclusive_gpus:
            self._tools.gpus.make_exclusive(gpu)
        return self._run(record, until, given_up)

    def remove(self, group_id: str, drain: float) -> None:
        """Nothing of the group is left. Clients have ``drain`` seconds. Raises DriverError, OSError."""
        folders = self.folders(group_id)
        record = self._record(folders)
        if record is not None and record.phase is not Phase.STOPPING:
            record = replace(record, phase=Phase.STOPPING)
            records.write(folders, record)
        self._tools.daemons.end(folders, self._daemon_of(record), drain, _protocol(record))
        for mounted in self._tools.isolation.mounted_below(folders.root):
            self._tools.isolation.unmount(mounted)
        if record is not None and record.boot_id == self._boot_id():  # a reboot has reset every mode
            for gpu in record.group.exclusive_gpus:
                self._tools.gpus.make_default(gpu)
        self._tools.cgroups.remove(cgroup_of(folders))
        _remove_folder(folders)

    def put_share(self, group: MpsGroup, share: MpsShare) -> None:
        """The share is there, and was read back; what cannot be is removed. Raises DriverError, OSError."""
        folders, record = self.folders(group.id), self._running(group.id)
        if record is None:
            raise GroupFailed(f"MPS group {group.id} does not run", hint="start it first")
        if share.name in record.leaving:
            self.remove_share(group.id, share.name)
            record = self._running(group.id) or record
        is_new = share not in record.shares
        if is_new:
            record = replace(record, shares=(*record.shares, share))
            records.write(folders, record)
        try:
            self._tools.daemons.shares.make(group, folders, share)
        except (DriverError, OSError):
            if is_new:
                self._undo_share(group.id, share.name)
            raise

    def remove_share(self, group_id: str, name: str) -> None:
        """Nothing of the share is left. Raises DriverError, OSError."""
        folders, record = self.folders(group_id), self._running(group_id)
        if record is None or all(each.name != name for each in record.shares):
            return
        record = replace(record, leaving=record.leaving | {name})
        records.write(folders, record)
        daemon = self._daemon_of(record)
        if daemon is not None and daemon.alive:  # with a daemon all its namespaces end
            self._tools.daemons.shares.remove(group_id, folders, name)
        shares = tuple(each for each in record.shares if each.name != name)
        records.write(folders, replace(record, shares=shares, leaving=record.leaving - {name}))

    def mend(self, group_id: str) -> None:
        """What should be left is, and what should be there is, as the record has it. Raises DriverError, OSError."""
        record = self._running(group_id)
        if record is None:
            return
        for name in sorted(record.leaving):
            self.remove_share(group_id, name)
        for share in record.wanted:
            self._tools.daemons.shares.make(record.group, self.folders(group_id), share)

    def recorded(self, group_id: str) -> tuple[tuple[MpsShare, ...], frozenset[str]]:
        """The shares that are to be there, and the names of those that leave. Raises DriverError, OSError."""
        record = self._running(group_id)
        return ((), frozenset()) if record is None else (record.wanted, record.leaving)

    def protocols(self) -> tuple[int, ...]:
        """That the node's MPS programs speak."""
        return self._tools.protocols.known()

    def _undo_share(self, group_id: str, name: str) -> None:
        try:
            self.remove_share(group_id, name)
        except (DriverError, OSError) as error:
            logger.warning("share %s of MPS group %s is not removed yet: %s", name, group_id, error)

    def _running(self, group_id: str) -> Record | None:
        folders = self.folders(group_id)
        record = self._record(folders) if folders.root.exists() else None
        return record if record is not None and record.phase is Phase.RUNNING else None

    def _run(self, record: Record, until: float, given_up: threading.Event) -> Process:
        group, folders, daemons = record.group, self.folders(record.group.id), self._tools.daemons
        daemon = daemons.launch(group, folders)
        records.write(folders, replace(record, daemon=daemon))
        try:
            self._tools.cgroups.move(daemon.pid, cgroup_of(folders))
            self.cgroup_problem = ""
        except OSError as error:
            self.cgroup_problem = f"the daemon of group {group.id} stays in our cgroup: {error}"
            logger.warning("%s; it ends with this container", self.cgroup_problem)
        daemons.settle(group, folders, daemon, until, given_up)
        for share in record.shares:
            daemons.shares.make(group, folders, share)
        records.write(folders, replace(record, daemon=daemon, phase=Phase.RUNNING))
        return daemon

    def _record(self, folders: GroupFolders) -> Record | None:
        try:
            return records.read(folders)
        except AnotherVersions as error:
            raise GroupFailed(
                f"the record of MPS group {folders.root.name} is not understood: {error}",
                hint="nothing of the group is touched: use the supervisor that started it, or a newer one",
            ) from error
        except NotARecord as error:
            logger.warning("%s is of no use, removing what is there: %s", folders.root / records.FILE, error)
            return None

    def _daemon_of(self, record: Record | None) -> Process | None:
        """Not one of an earlier boot: the same id and time may be another process now."""
        return record.daemon if record is not None and record.boot_id == self._boot_id() else None


def _protocol(record: Record | None) -> int:
    return LEGACY if record is None else record.group.protocol


def shm_kib(meminfo: str) -> int:
    """The size of a group's tmpfs: half of the memory (NVIDIA's cmd/gpu-kubelet-plugin/sharing.go)."""
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if name == "MemTotal" and words and words[0].isdigit():
            return int(words[0]) // 2
    return _FALLBACK_KIB


def _make_folder(folder: Path) -> bool:
    """Whether it was not there."""
    try:
        folder.mkdir()
        is_new = True
    except FileExistsError:
        is_new = False
    folder.chmod(_FOLDER_MODE)  # whatever the umask says
    return is_new


def _remove_folder(folders: GroupFolders) -> None:
    """The record last: as long as it is there, the rest may be."""
    if not folders.root.exists():
        return
    for each in folders.root.iterdir():
        if each.name == records.FILE:
            continue
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()
    with contextlib.suppress(FileNotFoundError):
        (folders.root / records.FILE).unlink()
    folders.root.rmdir()
