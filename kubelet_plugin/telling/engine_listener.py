"""What the prepare engine finds out beside its answers: a damaged checkpoint, work that failed without a caller."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter

from dra_driver.errors import DriverError
from dra_driver.observability.events import EventKind, EventRecorder, ObjectRef
from kubelet_plugin.claims.model import ClaimRef
from kubelet_plugin.prepare.checkpoint import CheckpointDamage
from kubelet_plugin.telling.failure_events import FailureEvents
from kubelet_plugin.telling.failures import Operation

_CLAIMS_NAMED = 4


class EngineListener:
    """A ``prepare.engine.PrepareListener``. Damage is told about ``node``, since it concerns no single claim."""

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

    def recovery_postponed(self, claims: Sequence[str]) -> None:
        more = f" and {len(claims) - _CLAIMS_NAMED} more" if len(claims) > _CLAIMS_NAMED else ""
        named = ", ".join(claims[:_CLAIMS_NAMED]) + more
        text = f"another plugin on this node works on the GPUs of claims {named}; they are put right later"
        self._events.event(self._node, EventKind.WARNING, "RecoveryPostponed", text)

    def failed_late(self, operation: Operation, claim: ClaimRef, error: DriverError) -> None:
        self._late.labels(operation).inc()
        self._failure_events.report(operation, claim, error)
