"""Tells people what became of a GPU's layout: a line in the log, and an Event on the Node."""

from __future__ import annotations

import logging

from dra_driver.observability.events import EventKind, EventRecorder, ObjectRef
from kubelet_plugin.kinds.mig.layout import LayoutOutcome, LayoutState

logger = logging.getLogger(__name__)


class LayoutEvents:
    """A ``layout_applier.LayoutListener``."""

    def __init__(self, events: EventRecorder, node: ObjectRef) -> None:
        self._events = events
        self._node = node

    def layout_outcome(self, outcome: LayoutOutcome) -> None:
        if not outcome.state.settled:
            logger.warning("%s", outcome)
            self._events.event(self._node, EventKind.WARNING, f"MigLayout{outcome.state}", str(outcome))
            return
        logger.info("%s", outcome)
        if outcome.state is LayoutState.APPLIED and outcome.changed:
            self._events.event(self._node, EventKind.NORMAL, f"MigLayout{outcome.state}", str(outcome))
