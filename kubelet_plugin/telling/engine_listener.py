"""What is found out beside answers to calls: a damaged checkpoint, another driver's claims, work that failed late."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter

from dra_driver.errors import DriverError
from dra_driver.observability.events import EventKind, EventRecorder, ObjectRef
from kubelet_plugin.claims.model import ClaimRef, Operation
from kubelet_plugin.prepare.checkpoint import CheckpointDamage
from kubelet_plugin.telling.failure_events import FailureEvents

logger = logging.getLogger(__name__)

_CLAIMS_NAMED = 4


class EngineListener:
    """A ``prepare.engine.PrepareListener`` and a ``takeover.take_over.TakeOverListener``.

    What concerns no single claim is told about ``node``.
    """

    def __init__(
        self, registry: CollectorRegistry, events: EventRecorder, failure_events: FailureEvents, node: ObjectRef
    ) -> None:
        self._events = events
        self._failure_events = failure_events
        self._node = node
        self._damages = Counter(
            "gpu_dra_checkpoint_damaged_total",
            "Checkpoint files that were set aside or lost, by kind.",
            ("kind",),
            registry=registry,
        )
        self._late = Counter(
            "gpu_dra_late_failures_total",
            "Claims whose work failed after its caller had been told that it still runs.",
            ("operation",),
            registry=registry,
        )

    def checkpoint_damaged(self, damage: CheckpointDamage) -> None:
        self._damages.labels(damage.kind).inc()
        self._events.event(self._node, EventKind.WARNING, "CheckpointDamaged", str(damage))

    def taken_over(self, message: str) -> None:
        logger.info("%s", message)
        self._events.event(self._node, EventKind.NORMAL, "ClaimsTakenOver", message)

    def take_over_incomplete(self, message: str) -> None:
        logger.warning("%s", message)
        self._events.event(self._node, EventKind.WARNING, "TakeOverIncomplete", message)

    def recovery_postponed(self, claims: Sequence[str]) -> None:
        more = f" and {len(claims) - _CLAIMS_NAMED} more" if len(claims) > _CLAIMS_NAMED else ""
        named = ", ".join(claims[:_CLAIMS_NAMED]) + more
        text = f"the GPUs of claims {named} are worked on by another plugin or do not answer; they are put right later"
        self._events.event(self._node, EventKind.WARNING, "RecoveryPostponed", text)

    def failed_late(self, operation: Operation, claim: ClaimRef, error: DriverError) -> None:
        self._late.labels(operation).inc()
        self._failure_events.report(operation, claim, error)
