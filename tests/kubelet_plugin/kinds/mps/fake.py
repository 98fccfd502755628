"""An MPS supervisor without daemons. What runs is in the groups' folders, as it outlives a plugin that is killed.

Kept honest by test_supervisor.py, whose cases run against the real one, too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

from dra_driver.errors import HardwareError
from dra_driver.mps.errors import GroupDiffers, GroupFailed, SupervisorUnavailable
from dra_driver.mps.group import (
    LEGACY,
    NAMED,
    RECORD,
    GroupState,
    GroupStatus,
    MpsGroup,
    MpsShare,
    ShareStatus,
    folders_of,
    groups_folder,
)
from dra_driver.observability.loops import Loop
from kubelet_plugin.kinds.mps.supervisor import Told


class FakeWatch:
    """Tells when it is started, and when the supervisor has changed something."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self.loop = Loop("fake-mps-watch", lambda: None, limit=1.0, doing="nothing")
        self.start = tell

    def stop(self) -> bool:
        return True


class FakeSupervisor:
    """``away``: nobody serves. ``fails``: ids of groups that do not start. ``states``: of groups that are not ready."""

    def __init__(self, plugin_folder: Path) -> None:
        self._plugin_folder = plugin_folder
        self._listeners: list[Told] = []
        self.away = False
        self.broken: HardwareError | None = None
        self.states: dict[str, GroupState] = {}
        self.calls: list[str] = []

    def start(self, group: MpsGroup) -> GroupStatus:
        self._call(f"start {group.id}")
        running = self._group(group.id)
        if running is not None and running != group:
            raise GroupDiffers(f"MPS group {group.id} runs with other settings")
        if self.broken is not None:
            raise self.broken
        folders = folders_of(self._plugin_folder, group.id)
        for folder in (folders.pipe, folders.log, folders.shm):
            folder.mkdir(parents=True, exist_ok=True)
        self._write(group, self._shares(group.id))
        self.tell()
        return self._status(group)

    def stop(self, group_id: str) -> None:
        self._call(f"stop {group_id}")
        shutil.rmtree(folders_of(self._plugin_folder, group_id).root, ignore_errors=True)
        self.states.pop(group_id, None)
        self.tell()

    def put_share(self, group_id: str, share: MpsShare) -> GroupStatus:
        self._call(f"put {group_id} {share.name}")
        group = self._group(group_id)
        if group is None or group.protocol != NAMED:
            raise GroupFailed(f"MPS group {group_id} does not run, or has no shares")
        known = {each.name: each for each in self._shares(group_id)}
        if known.get(share.name, share) != share:
            raise GroupDiffers(f"share {share.name} has other limits")
        if self.broken is not None:
            raise self.broken
        self._write(group, (*(each for each in known.values() if each != share), share))
        self.tell()
        return self._status(group)

    def remove_share(self, group_id: str, name: str) -> None:
        self._call(f"remove {group_id} {name}")
        group = self._group(group_id)
        if group is not None:
            self._write(group, tuple(each for each in self._shares(group_id) if each.name != name))
            self.tell()

    def protocols(self) -> tuple[int, ...]:
        return (LEGACY, NAMED)

    def groups(self) -> tuple[GroupStatus, ...]:
        self._call("groups")
        return self.now()

    @property
    def absence(self) -> str:
        return "nobody serves" if self.away else ""

    def watch(self, listener: Told, /) -> FakeWatch:
        self._listeners.append(listener)
        return FakeWatch(self.tell)

    # -- for tests ------------------------------------------------------------------------------------------------------

    def now(self) -> tuple[GroupStatus, ...]:
        folders = groups_folder(self._plugin_folder)
        found = map(self._group, sorted(path.parent.name for path in folders.glob(f"*/{RECORD}")))
        return tuple(self._status(group) for group in found if group is not None)

    def ids(self) -> list[str]:
        """Of all groups of which anything is there."""
        return sorted(path.name for path in groups_folder(self._plugin_folder).glob("*"))

    def become(self, group_id: str, state: GroupState) -> None:
        self.states[group_id] = state
        self.tell()

    def tell(self) -> None:
        for listener in self._listeners:
            listener(self.now())

    def _call(self, what: str) -> None:
        if self.away:
            raise SupervisorUnavailable(f"{what} failed: no MPS supervisor", hint="switch it on")
        self.calls.append(what)

    def _group(self, group_id: str) -> MpsGroup | None:
        try:
            text = (folders_of(self._plugin_folder, group_id).root / RECORD).read_text()
        except FileNotFoundError:
            return None
        group = MpsGroup(**json.loads(text)["group"])
        return replace(group, devices=tuple(group.devices), exclusive_gpus=tuple(group.exclusive_gpus))

    def _shares(self, group_id: str) -> tuple[MpsShare, ...]:
        try:
            text = (folders_of(self._plugin_folder, group_id).root / RECORD).read_text()
        except FileNotFoundError:
            return ()
        return tuple(MpsShare(**each) for each in json.loads(text)["shares"])

    def _write(self, group: MpsGroup, shares: Iterable[MpsShare]) -> None:
        folder = folders_of(self._plugin_folder, group.id).root
        written = folder / f"{RECORD}.new"
        written.write_text(json.dumps({"group": asdict(group), "shares": [asdict(each) for each in shares]}))
        written.rename(folder / RECORD)

    def _status(self, group: MpsGroup) -> GroupStatus:
        state = self.states.get(group.id, GroupState.READY)
        said = "" if state is GroupState.READY else f"a test says {state}"
        return GroupStatus(group, state, said, 4711, shares=tuple(map(ShareStatus, self._shares(group.id))))


def failed(group: str) -> HardwareError:
    return GroupFailed(f"the daemon of {group} does not answer", hint="see the supervisor's log")
