"""The shares of groups: put, removed and put right, in the group's turn.

What there is of them is in the group's record; after each act the group is known as its record has it, however the act
ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from dra_driver.errors import DriverError
from dra_driver.mps.errors import GroupDiffers, GroupFailed, GroupTimeout
from dra_driver.mps.group import GroupState, GroupStatus, MpsGroup, MpsShare, ShareStatus
from kubelet_plugin.mps_supervisor.running import Running, difference, failed
from kubelet_plugin.mps_supervisor.supervisor import Counts, Supervisor
from kubelet_plugin.mps_supervisor.validation import check_id, check_share

logger = logging.getLogger(__name__)

_LIMITS = ("pinned_memory_mib", "active_thread_percentage", "low_priority")
_HAS_A_DAEMON = (GroupState.READY, GroupState.WEDGED)


class Steps(Protocol):
    """``group_steps.GroupSteps``. Raise DriverError, OSError."""

    def put_share(self, group: MpsGroup, share: MpsShare) -> None: ...
    def remove_share(self, group_id: str, name: str) -> None: ...
    def mend(self, group_id: str) -> None: ...
    def recorded(self, group_id: str) -> tuple[tuple[MpsShare, ...], frozenset[str]]: ...


class ShareCalls:
    """Thread-safe. ``wait_seconds``: for a turn, ``spec.mps.startTimeout``."""

    def __init__(self, supervisor: Supervisor, steps: Steps, counts: Counts, *, wait_seconds: float) -> None:
        self._supervisor = supervisor
        self._steps = steps
        self._counts = counts
        self._wait_seconds = wait_seconds

    def put(self, group_id: str, share: MpsShare) -> GroupStatus:
        """The share is there, and its limits were read back. Raises DriverError."""
        with self._supervisor.turn(check_id(group_id), self._until()):
            known = self._supervisor.find(group_id)
            if known is None or known.state not in _HAS_A_DAEMON:
                state = "does not run" if known is None else f"is {known.state}: {known.message}"
                raise GroupFailed(f"share {share.name}: MPS group {group_id} {state}", hint="start it first")
            check_share(known.group, share, self._supervisor.devices(known.group))
            runs = known.share(share.name)
            if runs is not None and runs != share:
                raise GroupDiffers(
                    f"share {share.name} of MPS group {group_id} has other limits: {difference(runs, share, _LIMITS)}",
                    hint="remove it first; its clients keep the limits that they have",
                )
            put = partial(self._steps.put_share, known.group, share)
            self._do("share", group_id, put, lambda name: name == share.name)
            return (self._supervisor.find(group_id) or known).status

    def remove(self, group_id: str, name: str) -> None:
        """Nothing of the share is left. Raises DriverError."""
        with self._supervisor.turn(check_id(group_id), self._until()):
            if self._supervisor.find(group_id) is not None:
                self._supervisor.change(group_id, lambda known: _as_leaving(known, name))  # who looks misses it no more
                self._do("removal of a share", group_id, partial(self._steps.remove_share, group_id, name), _none)

    def mend(self, group_id: str) -> bool:
        """All shares are as they should be again; else it is tried again at the next look. False when it cannot be."""
        try:
            with self._supervisor.turn(group_id, time.monotonic()):
                known = self._supervisor.find(group_id)
                if known is not None and known.state in _HAS_A_DAEMON:
                    self._do("mending of shares", group_id, partial(self._steps.mend, group_id), lambda _name: True)
                    logger.warning("MPS group %s: its shares were put right", group_id)
        except GroupTimeout:  # whoever has the turn changes it, or the daemon does not answer: the next look tells
            return True
        except DriverError as error:
            logger.warning("MPS group %s: its shares cannot be put right: %s", group_id, error)
            return False
        return True

    def _do(self, what: str, group_id: str, act: Callable[[], None], is_right: Callable[[str], bool]) -> None:
        """``is_right``: of which shares, by name, nothing is wrong any more when it was done."""
        try:
            act()
        except (DriverError, OSError) as error:
            told = error if isinstance(error, DriverError) else failed(what, group_id, error)
            self._counts.failed(told.reason)
            self._follow_record(group_id, _none)
            raise told from error
        self._follow_record(group_id, is_right)

    def _follow_record(self, group_id: str, is_right: Callable[[str], bool]) -> None:
        try:
            wanted, leaving = self._steps.recorded(group_id)
        except (DriverError, OSError) as error:
            logger.warning("MPS group %s: its record cannot be read: %s", group_id, error)
            return
        self._supervisor.change(group_id, lambda known: _as_recorded(known, wanted, leaving, is_right))

    def _until(self) -> float:
        return time.monotonic() + self._wait_seconds


def _as_recorded(
    known: Running, wanted: tuple[MpsShare, ...], leaving: frozenset[str], is_right: Callable[[str], bool]
) -> Running:
    told = {each.share: each.message for each in known.shares if not is_right(each.share.name)}
    shares = tuple(ShareStatus(each, told.get(each, "")) for each in sorted(wanted, key=lambda share: share.name))
    after = replace(known, shares=shares, leaving=leaving)
    was_wrong, is_wrong = (any(each.message for each in those) for those in (known.shares, shares))
    if known.state is GroupState.WEDGED and was_wrong and not is_wrong:
        return replace(after, state=GroupState.READY, message="")
    return after


def _as_leaving(known: Running, name: str) -> Running:
    return replace(known, shares=tuple(each for each in known.shares if each.share.name != name))


def _none(_name: str) -> bool:
    return False
