"""The one place where a :class:`DriverError` becomes words for others: gRPC reply, Event, metric label.

The kubelet puts the reply's text into a pod Event of its own (FailedPrepareDynamicResources) and always tries again, so
the text says what failed, why, what to do, and whether trying again can help.
"""

from __future__ import annotations

from dataclasses import dataclass

from dra_driver.errors import DriverError
from dra_driver.text import shortened
from kubelet_plugin.claims.model import ClaimRef, Operation

# The kubelet copies the reply into an Event, with a text of its own before it.
REPLY_BYTES = 900


@dataclass(frozen=True, slots=True)
class FailureEvent:
    """An Event about a claim."""

    type: str  # always "Warning"
    reason: str
    message: str


def reply_text(operation: Operation, claim: ClaimRef, error: DriverError) -> str:
    """The per-claim ``error`` of NodePrepareResources and NodeUnprepareResources."""
    retry = "" if error.retryable else " [trying again does not help]"
    return shortened(f"{operation} claim {claim}: {error.reason}: {error}", REPLY_BYTES - len(retry)) + retry


def failure_event(operation: Operation, claim: ClaimRef, error: DriverError) -> FailureEvent:
    """The Event to record on the claim."""
    return FailureEvent(
        "Warning",
        error.reason,
        shortened(f"cannot {operation} {claim.namespace}/{claim.name}: {error}"),
    )


def metric_label(error: DriverError | None) -> str:
    """The value of the ``reason`` label: a closed set of words, empty for success."""
    return error.reason if error else ""
