"""Tells people what is wrong with a claim: an Event on each pod that it is reserved for, or on the claim itself.

The kubelet names a claim only, so the claim is read to find its pods; that happens on a thread of its own, so that no
call waits for it. The kubelet writes an Event of its own with our reply in it, but under one reason for everything and
only when it tries again; ours has the error's reason, which can be searched for and alerted on.
"""

from __future__ import annotations

import logging
import queue

from dra_driver.errors import DriverError
from dra_driver.kube.interface import RESOURCE_CLAIMS, ApiError, KubeApi, NotFound
from dra_driver.observability.events import EventRecorder, ObjectRef
from dra_driver.observability.loops import Loop
from kubelet_plugin.claims.model import ClaimRef, Failures, Operation
from kubelet_plugin.telling.failures import FailureEvent, failure_event

logger = logging.getLogger(__name__)

_WAITING = 200
_LIMIT_SECONDS = 60.0  # for one failure: a request with its own time limit

_Item = tuple[ClaimRef, FailureEvent]


class FailureEvents:
    """A ``dra_service.CallObserver`` with one thread, ``failure-events``, between start and stop."""

    def __init__(self, api: KubeApi, recorder: EventRecorder) -> None:
        self._api = api
        self._recorder = recorder
        self._queue: queue.Queue[_Item] = queue.Queue(_WAITING)
        self.loop = Loop(
            "failure-events",
            self._round,
            limit=_LIMIT_SECONDS,
            doing="telling about a failed claim",
            finish=True,
        )

    def start(self) -> None:
        self.loop.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Handle what waits, then end the thread; give up after ``timeout`` seconds."""
        if not self.loop.stop(timeout):
            logger.warning("failure events are left behind: the API server does not answer")

    def started(self, operation: Operation) -> None:
        """Nothing to tell yet."""

    def finished(self, operation: Operation, seconds: float, failures: Failures) -> None:
        for claim, error in failures:
            self.report(operation, claim, error)

    def report(self, operation: Operation, claim: ClaimRef, error: DriverError) -> None:
        """That the operation failed. Returns at once."""
        self.tell(claim, failure_event(operation, claim, error))

    def tell(self, claim: ClaimRef, event: FailureEvent) -> None:
        """Returns at once."""
        try:
            self._queue.put_nowait((claim, event))
        except queue.Full:
            logger.warning("no event about a failed claim, too many wait", extra={"claim": str(claim)})
        self.loop.wake()

    def _round(self) -> float | None:
        try:
            item = self._queue.get_nowait()
        except queue.Empty:
            return None
        try:
            self._record(*item)
        except Exception:
            # One claim of an odd form must not hold up the events of all others.
            logger.exception("an event about a failed claim could not be made", extra={"claim": str(item[0])})
            self.loop.count_error()
        return 0.0

    def _record(self, claim: ClaimRef, event: FailureEvent) -> None:
        for regarding in self._regarding(claim):
            self._recorder.event(regarding, event.type, event.reason, event.message)

    def _regarding(self, claim: ClaimRef) -> list[ObjectRef]:
        itself = ObjectRef(RESOURCE_CLAIMS.api_version, RESOURCE_CLAIMS.kind, claim.name, claim.uid, claim.namespace)
        try:
            found = self._api.get(RESOURCE_CLAIMS, claim.name, claim.namespace)
        except NotFound:
            return []  # nobody would find an Event about an object that is gone
        except ApiError as error:
            logger.info("the claim of a failure cannot be read: %s", error, extra={"claim": str(claim)})
            return [itself]
        users = (found.get("status") or {}).get("reservedFor") or ()
        pods = [
            ObjectRef("v1", "Pod", user["name"], user.get("uid", ""), claim.namespace)
            for user in users
            if user.get("resource") == "pods"
        ]
        same = found["metadata"]["uid"] == claim.uid
        return pods if pods and same else [itself]
