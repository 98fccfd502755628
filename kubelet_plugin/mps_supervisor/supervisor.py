"""The groups by id. Whoever changes one, or a share of it, has its turn: a group waits for nothing but itself.

Two groups never have one device; apart from that they know nothing of each other, and nothing is held across two.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol
from weakref import WeakValueDictionary

from dra_driver.errors import DriverError
from dra_driver.hardware.nvml.compute_device import ComputeDevice
from dra_driver.mps.errors import GroupDiffers, GroupTimeout
from dra_driver.mps.group import LEGACY, GroupState, GroupStatus, MpsGroup, ShareStatus
from dra_driver.processes import Process
from kubelet_plugin.mps_supervisor.gpus import Gpus
from kubelet_plugin.mps_supervisor.running import Running, difference, failed
from kubelet_plugin.mps_supervisor.validation import check, check_id, check_protocol

logger = logging.getLogger(__name__)

_SETTINGS = ("devices", "exclusive_gpus", "active_thread_percentage", "pinned_memory_mib", "multi_user", "protocol")
_FAST_DRAIN = 0.0  # nobody may be using what was never ready


class Steps(Protocol):
    """``group_steps.GroupSteps``."""

    def start(self, group: MpsGroup, until: float, given_up: threading.Event) -> Process: ...
    def remove(self, group_id: str, drain: float) -> None: ...
    def protocols(self) -> tuple[int, ...]: ...


class Counts(Protocol):
    """Who counts what happens (``metrics``)."""

    def started(self, seconds: float) -> None: ...
    def failed(self, reason: str) -> None: ...
    def recycled(self) -> None: ...


@dataclass(slots=True, weakref_slot=True)
class _Turn:
    lock: threading.Lock = field(default_factory=threading.Lock)
    given_up: threading.Event = field(default_factory=threading.Event)  # the start under way is not wanted any more


class Supervisor:
    """Thread-safe. ``start_seconds`` and ``drain_seconds``: ``spec.mps``."""

    def __init__(self, steps: Steps, gpus: Gpus, counts: Counts, *, start_seconds: float, drain_seconds: float) -> None:
        self._steps = steps
        self._gpus = gpus
        self._counts = counts
        self._start_seconds = start_seconds
        self._drain_seconds = drain_seconds
        self._changed = threading.Condition()
        self._changes = 0
        self._groups: dict[str, Running] = {}
        self._turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()

    # -- for those who call -------------------------------------------------------------------------------------------

    def start(self, group: MpsGroup) -> GroupStatus:
        """The group runs, and its daemon has answered. Raises DriverError."""
        until = time.monotonic() + self._start_seconds
        with self.turn(check_id(group.id), until) as turn:
            known = self.find(group.id)
            if known is not None and known.group != group:
                raise GroupDiffers(
                    f"MPS group {group.id} runs with other settings: {difference(known.group, group, _SETTINGS)}",
                    hint="stop it first; its clients lose their work",
                )
            if known is not None and known.state in (GroupState.READY, GroupState.WEDGED):
                return known.status
            check(group, self.devices(group))
            if group.protocol != LEGACY:
                check_protocol(group, self._steps.protocols())
            self._reserve(group)
            return self._started(group, known, until, turn.given_up).status

    def stop(self, group_id: str) -> None:
        """Nothing of the group is left. Raises DriverError."""
        turn = self._turn_of(check_id(group_id))
        turn.given_up.set()
        with self.turn(group_id, time.monotonic() + self._start_seconds, turn):
            known = self.find(group_id)
            if known is not None:
                self._put(replace(known, state=GroupState.STOPPING, message="it is stopped"))
            # A dead one has lost its clients, or does not answer any more.
            is_dead = known is not None and known.state is GroupState.DEAD
            self._removed(group_id, known, 0.0 if is_dead else self._drain_seconds)

    def protocols(self) -> tuple[int, ...]:
        """That the node's MPS programs speak."""
        return self._steps.protocols()

    def groups(self) -> tuple[Running, ...]:
        """By id."""
        with self._changed:
            return tuple(self._groups[each] for each in sorted(self._groups))

    def find(self, group_id: str) -> Running | None:
        with self._changed:
            return self._groups.get(group_id)

    def wait_for_change(self, seen: int, seconds: float) -> int:
        """The number of changes so far, when it is another than ``seen``, or after ``seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes != seen, seconds)
            return self._changes

    @property
    def changes(self) -> int:
        return self._changes

    def wake(self) -> None:
        """Whoever waits for a change looks."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    # -- for those who observe ----------------------------------------------------------------------------------------

    def adopt(self, running: Running) -> None:
        """A group that an earlier supervisor has left."""
        self._put(running)

    def observed(self, before: Running, after: Running) -> bool:
        """``after`` is how it is, unless it was changed since it was ``before``; whether that holds."""
        with self._changed:
            if self._groups.get(before.group.id) is not before:
                return False
            if after != before:
                self._groups[before.group.id] = after
                self._changes += 1
                self._changed.notify_all()
        if after.state is not before.state:
            log = logger.info if after.state is GroupState.READY else logger.warning
            log("MPS group %s is %s now: %s", after.group.id, after.state, after.message or "all is well")
        return True

    def change(self, group_id: str, change: Callable[[Running], Running]) -> None:
        """It is as ``change`` has it now; nothing for a group that is gone."""
        with self._changed:
            known = self._groups.get(group_id)
            if known is not None:
                self._groups[group_id] = change(known)
                self._changes += 1
                self._changed.notify_all()

    def recycle(self, group_id: str) -> None:
        """A wedged group that nobody uses gets another daemon. Nothing when it is not so any more, or somebody has the
        turn."""
        turn = self._turn_of(group_id)
        if not turn.lock.acquire(blocking=False):
            return
        try:
            known = self.find(group_id)
            if known is None or known.state is not GroupState.WEDGED or known.clients:
                return
            logger.warning("MPS group %s: no client is left, its daemon is started anew", group_id)
            until = time.monotonic() + self._start_seconds
            turn.given_up.clear()
            self._put(replace(known, state=GroupState.STARTING, message="its daemon is started anew"))
            self._started(known.group, known, until, turn.given_up)
            self._counts.recycled()
        except (DriverError, OSError) as error:
            logger.warning("MPS group %s was not started anew: %s", group_id, error)
        finally:
            turn.lock.release()

    # -- with the turn ------------------------------------------------------------------------------------------------

    def _started(self, group: MpsGroup, known: Running | None, until: float, given_up: threading.Event) -> Running:
        began = time.monotonic()
        try:
            daemon = self._steps.start(group, until, given_up)
        except (DriverError, OSError) as error:
            told = error if isinstance(error, DriverError) else failed("start", group.id, error)
            self._counts.failed(told.reason)
            logger.warning("MPS group %s was not started: %s", group.id, told)
            if known is not None:  # containers have its folders: it is there until it is stopped
                self._put(known.dead(f"it was not started anew: {told}"))
            else:
                self._roll_back(group)
            raise told from error
        seconds = time.monotonic() - began
        self._counts.started(seconds)
        ready = Running(group, GroupState.READY, daemon=daemon)
        if known is not None:  # its shares were made again with the daemon
            ready = replace(ready, shares=tuple(ShareStatus(each.share) for each in known.shares))
        self._put(ready)
        logger.info("MPS group %s runs", group.id, extra={"pid": daemon.pid, "seconds": round(seconds, 3)})
        return ready

    def _roll_back(self, group: MpsGroup) -> None:
        try:
            self._removed(group.id, Running(group, GroupState.STARTING), _FAST_DRAIN)
        except DriverError as error:
            logger.warning("MPS group %s: what was made is not removed yet: %s", group.id, error)

    def _removed(self, group_id: str, known: Running | None, drain: float) -> None:
        try:
            self._steps.remove(group_id, drain)
        except (DriverError, OSError) as error:
            told = error if isinstance(error, DriverError) else failed("stop", group_id, error)
            self._counts.failed(told.reason)
            if known is not None:
                self._put(known.dead(f"it is not removed: {told}"))
            raise told from error
        with self._changed:
            self._groups.pop(group_id, None)
            self._changes += 1
            self._changed.notify_all()
        if known is not None:
            logger.info("MPS group %s is gone", group_id)

    def devices(self, group: MpsGroup) -> Mapping[str, ComputeDevice | None]:
        """What there is under the UUIDs that it names. Raises HardwareError."""
        named = {*group.devices, *group.exclusive_gpus, *group.pinned_memory_mib}
        return {uuid: self._gpus.device(uuid) for uuid in sorted(named)}

    def _reserve(self, group: MpsGroup) -> None:
        """Its devices are its own from now on. Raises GroupDiffers when another group has one."""
        with self._changed:
            for other in self._groups.values():
                shared = sorted(set(other.group.devices) & set(group.devices))
                if other.group.id != group.id and shared:
                    raise GroupDiffers(
                        f"device {shared[0]} is in MPS group {other.group.id} already, not free for {group.id}",
                        hint="it is free when that group is stopped",
                    )
            self._groups[group.id] = Running(group, GroupState.STARTING, "its daemon is started")
            self._changes += 1
            self._changed.notify_all()

    def _put(self, running: Running) -> None:
        with self._changed:
            self._groups[running.group.id] = running
            self._changes += 1
            self._changed.notify_all()

    def _turn_of(self, group_id: str) -> _Turn:
        with self._changed:
            return self._turns.setdefault(group_id, _Turn())

    @contextmanager
    def turn(self, group_id: str, until: float, turn: _Turn | None = None) -> Iterator[_Turn]:
        """Nobody else changes the group meanwhile. ``until``: of time.monotonic. Raises GroupTimeout."""
        turn = turn or self._turn_of(group_id)
        if not turn.lock.acquire(timeout=max(0.0, until - time.monotonic())):
            raise GroupTimeout(f"MPS group {group_id} is still being started or stopped", hint="it is tried again")
        try:
            turn.given_up.clear()
            yield turn
        finally:
            turn.lock.release()
