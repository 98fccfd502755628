"""Tells the claims of a group, or their pods, that its daemon has died or is stuck."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from dra_driver.errors import StateError
from dra_driver.mps.group import GroupState
from dra_driver.text import shortened
from kubelet_plugin.claims.entry import ClaimEntry
from kubelet_plugin.claims.model import ClaimRef
from kubelet_plugin.kinds.mps.states import Unhealthy, describe
from kubelet_plugin.kinds.mps.step import group_in
from kubelet_plugin.telling.failures import FailureEvent

logger = logging.getLogger(__name__)

_REASONS: Final = {GroupState.DEAD: "MpsDaemonDied", GroupState.WEDGED: "MpsDaemonWedged"}


class ClaimEvents(Protocol):
    """``telling.failure_events.FailureEvents``."""

    def tell(self, claim: ClaimRef, event: FailureEvent) -> None:
        """Returns at once."""
        ...


class DaemonEvents:
    """A listener of ``states.GroupStates``. ``entries``: the checkpoint as it is now; may raise ``StateError``."""

    def __init__(self, events: ClaimEvents, entries: Callable[[], Mapping[str, ClaimEntry]]) -> None:
        self._events = events
        self._entries = entries

    def changed(self, before: Unhealthy, now: Unhealthy) -> None:
        new = {
            group: status
            for group, status in now.items()
            if group not in before or before[group].state is not status.state
        }
        for status in new.values():
            logger.error("%s", describe(status))
        for group in before.keys() - now.keys():
            logger.info("MPS group %s is well again, or gone", group)
        if new:
            self._tell_claims(new)

    def _tell_claims(self, groups: Unhealthy) -> None:
        try:
            entries = self._entries().values()
        except StateError as error:
            logger.warning("cannot tell whose MPS daemons these are: %s", error)
            return
        for entry in entries:
            for group in {group_in(record) for record in entry.steps} & groups.keys():
                status = groups[group or ""]
                event = FailureEvent("Warning", _REASONS[status.state], shortened(describe(status)))
                self._events.tell(entry.ref, event)
