"""Carries out a write plan, one request at a time, and says how it went.

Before each request it asks whether this process may still write; after each it compares the server's echo with what
was sent. Deletions carry the UID and resourceVersion that were seen, so that a fresh slice is never removed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from controller.metrics import ControllerMetrics
from controller.own_writes import OwnWrites
from dra_driver.kube.interface import RESOURCE_SLICES, ApiError, Conflict, KubeApi, NotFound, Obj, Preconditions
from dra_driver.slices.diff import SliceDelete, WritePlan, dropped_fields

logger = logging.getLogger(__name__)


class NotLeadingError(Exception):
    """This process may not write (any more); another one leads."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a plan came. Only with all fields false was everything written and kept."""

    stale: bool = False  # 409: a slice is not as it was seen
    wiped: bool = False  # 404: a slice is gone
    dropped: tuple[str, ...] = ()  # fields that the server does not hold


class SliceWriter:
    """Stateless but for its collaborators; used by several workers."""

    def __init__(self, api: KubeApi, may_write: Callable[[], bool], metrics: ControllerMetrics) -> None:
        self._api = api
        self._may_write = may_write
        self._metrics = metrics

    def may_write(self) -> bool:
        """Whether this process leads, and long enough for one more request."""
        return self._may_write()

    def check_leading(self) -> None:
        """Raises NotLeadingError unless this process may write now."""
        if not self._may_write():
            raise NotLeadingError

    def apply(self, plan: WritePlan, own: OwnWrites) -> Outcome:
        """Deletes, then updates, then creates; stops at the first surprise. Raises ApiError and NotLeadingError."""
        try:
            for deletion in plan.deletes:
                self._delete(deletion, own)
            for sent in plan.updates:
                dropped = self._update(sent, own)
                if dropped:
                    return Outcome(dropped=dropped)
            for sent in plan.creates:
                dropped = self._create(sent, own)
                if dropped:
                    return Outcome(dropped=dropped)
        except NotFound:
            return Outcome(wiped=True)
        except Conflict as error:
            logger.info("a slice changed meanwhile, looking again: %s", error)
            return Outcome(stale=True)
        return Outcome()

    def _delete(self, deletion: SliceDelete, own: OwnWrites) -> None:
        self.check_leading()
        own.will_delete(deletion.uid)
        preconditions = Preconditions(uid=deletion.uid, resource_version=deletion.resource_version)
        try:
            self._api.delete(RESOURCE_SLICES, deletion.name, preconditions=preconditions)
        except NotFound:
            own.did_not_delete(deletion.uid)
            own.is_gone(deletion.name, deletion.uid)
            raise
        except ApiError:
            own.did_not_delete(deletion.uid)
            raise
        own.is_gone(deletion.name, deletion.uid)
        self._wrote("delete", deletion.name)

    def _update(self, sent: Obj, own: OwnWrites) -> tuple[str, ...]:
        self.check_leading()
        metadata = sent["metadata"]
        try:
            echoed = self._api.update(RESOURCE_SLICES, sent)
        except NotFound:
            own.is_gone(metadata["name"], metadata["uid"])
            raise
        own.wrote(echoed)
        self._wrote("update", metadata["name"])
        return dropped_fields(sent, echoed)

    def _create(self, sent: Obj, own: OwnWrites) -> tuple[str, ...]:
        self.check_leading()
        echoed = self._api.create(RESOURCE_SLICES, sent)
        own.wrote(echoed)
        self._wrote("create", echoed["metadata"]["name"])
        return dropped_fields(sent, echoed)

    def _wrote(self, verb: str, name: str) -> None:
        self._metrics.slice_writes.labels(verb).inc()
        logger.info("%sd slice", verb, extra={"slice": name})
