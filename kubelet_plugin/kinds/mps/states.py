"""What is known of the groups without asking: the supervisor's last list. Never waits for anybody.

While the supervisor is away, the last list stays: its daemons live on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from dra_driver.mps.group import GroupState, GroupStatus
from dra_driver.observability.listeners import Listeners

_UNHEALTHY: Final = frozenset((GroupState.DEAD, GroupState.WEDGED))
_CONSEQUENCE: Final = MappingProxyType(
    {
        GroupState.DEAD: "its clients are lost and new ones find nobody; delete the pods that use it",
        GroupState.WEDGED: "new clients would hang; it is recycled when the last client has ended",
    }
)

Unhealthy = Mapping[str, GroupStatus]
"""Groups that are dead or wedged, by id."""


class GroupStates:
    """``told`` is a listener of the supervisor's watch. Thread-safe: what is kept is replaced as a whole."""

    def __init__(self) -> None:
        self._unhealthy: Unhealthy = {}
        self._changed: Listeners[[Unhealthy, Unhealthy]] = Listeners("the health of MPS groups changed")
        self._told: Listeners[[]] = Listeners("the supervisor told of its groups")

    @property
    def unhealthy(self) -> Unhealthy:
        return self._unhealthy

    def told(self, groups: tuple[GroupStatus, ...]) -> None:
        """``groups``: all that there are."""
        before = self._unhealthy
        self._unhealthy = {each.group.id: each for each in groups if each.state in _UNHEALTHY}
        if _states(before) != _states(self._unhealthy):
            self._changed.tell(before, self._unhealthy)
        self._told.tell()

    def on_told(self, listener: Callable[[], None]) -> None:
        """``listener`` is called on the watch's thread after each list, the first one included, and must not block."""
        self._told.add(listener)

    def on_change(self, listener: Callable[[Unhealthy, Unhealthy], None]) -> None:
        """``listener`` is given what was and what is, on the watch's thread, and must not block."""
        self._changed.add(listener)

    def trouble(self, group: str) -> str:
        """Why the devices of a group cannot be used, in a sentence; empty for a group that is well or not known."""
        status = self._unhealthy.get(group)
        return "" if status is None else describe(status)


def describe(status: GroupStatus) -> str:
    state, why = status.state, status.message or "no reason is known"
    return f"the MPS daemon of group {status.group.id} is {state.lower()} ({why}): {_CONSEQUENCE[state]}"


def _states(groups: Unhealthy) -> Mapping[str, GroupState]:
    return {group: status.state for group, status in groups.items()}
