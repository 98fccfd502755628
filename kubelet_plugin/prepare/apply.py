"""Carries plans out and undoes them: all steps of a claim or none.

Responsible for order, for seeing whether a step is done where it may be, and for rolling back when one fails. What is
written down when is the caller's business: the records before :meth:`Applier.apply`, and again, with what the steps
brought about, after it. :meth:`Applier.undo` needs only what was there before: a crash in between loses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dra_driver.errors import DriverError, InternalError
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, StepRecord
from kubelet_plugin.claims.model import ClaimRef
from kubelet_plugin.prepare.kind import NothingDone, StepRunner
from kubelet_plugin.prepare.kinds import unknown_step
from kubelet_plugin.prepare.plan import Plan, PlannedStep

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Failure:
    """A plan that could not be carried out. ``entry`` is what is left to undo, None when everything was undone."""

    error: DriverError
    entry: ClaimEntry | None


StillNeeded = Callable[[StepRecord, Sequence[ClaimEntry]], bool]


class Applier:
    """Runs steps with ``runners``, by kind. ``boot_id``: the present boot's.

    ``still_needed``: whether others need what a step brought about, so that it must not be undone with this claim.
    """

    def __init__(
        self,
        runners: Mapping[str, StepRunner],
        boot_id: str,
        still_needed: StillNeeded = lambda _record, _others: False,
    ) -> None:
        self._runners = dict(runners)
        self._boot_id = boot_id
        self._still_needed = still_needed

    def apply(self, plan: Plan, progress: Progress, others: Sequence[ClaimEntry] = ()) -> ClaimEntry | Failure:
        """Do the steps; the claim's finished record, or a :class:`Failure` after rolling back. ``others``: claims.

        Of a plan that repeats only what is found not done is done, and nothing is rolled back: its claim was prepared
        before, and containers may use it.
        """
        done: list[StepRecord] = []
        todo = list(plan.steps)
        while todo:
            planned = todo.pop(0)
            progress(planned.step.does())
            record = planned.record
            try:
                record = replace(record, result=self._done(planned, plan, done))
            except Exception as error:  # noqa: BLE001 - whatever went wrong, a half-prepared claim must not stay
                failure = _as_driver_error(error, plan.ref)
                if plan.repeats:
                    return Failure(failure, plan.entry)
                touched = done if isinstance(error, NothingDone) else [*done, record]
                return self._roll_back(_started(plan.entry, touched), failure, progress, others)
            done.append(record)
        return replace(plan.entry, steps=tuple(done))

    def _done(self, planned: PlannedStep, plan: Plan, done: Sequence[StepRecord]) -> Mapping[str, str]:
        runner = self._runner(planned.record)
        observed = runner.observe(planned.step, done) if plan.repeats else None
        return runner.do(planned.step, done) if observed is None else observed

    def undo(self, entry: ClaimEntry, progress: Progress, others: Sequence[ClaimEntry] = ()) -> None:
        """Undo all steps of ``entry``, the last first, done or not. Raises ``DriverError`` at the first that cannot.

        ``others``: the other claims of this boot; what they need too is left to the last of them. What a reboot has
        undone is left alone: whatever looks like it was made by somebody else since. Where one step is of an unknown
        kind, none is undone: what the others made may be part of what it made.
        """
        runners = [(record, self._runner(record)) for record in reversed(entry.steps)]
        for record, runner in runners:
            if self._still_needed(record, others):
                continue
            if entry.boot_id == self._boot_id or runner.survives_reboot:
                progress(f"undo {record.kind}")
                runner.undo(entry.ref.uid, record)

    def do_needs_intent(self, entry: ClaimEntry) -> bool:
        """Whether the record has to say that doing has begun, before it begins. If not, the finished record may be
        written ahead: what is not done of it is done at the next start. Raises as :meth:`undo`."""
        return any([self._runner(record).do_needs_intent for record in entry.steps])  # noqa: C419 - all are known

    def undo_needs_intent(self, entry: ClaimEntry) -> bool:
        """Whether the record has to say that undoing has begun, before it begins. Raises as :meth:`undo`."""
        return any([self._runner(record).undo_needs_intent for record in entry.steps])  # noqa: C419 - all are known

    def _roll_back(
        self, entry: ClaimEntry, failure: DriverError, progress: Progress, others: Sequence[ClaimEntry]
    ) -> Failure:
        """``entry`` has the steps that may have been done."""
        try:
            self.undo(entry, progress, others)
        except DriverError as error:
            logger.error(  # noqa: TRY400 - both are expected errors with a sentence of their own
                "claim %s: rolling back failed, the next attempt goes on with it: %s", entry.ref, error
            )
            return Failure(failure, entry)
        return Failure(failure, None)

    def _runner(self, record: StepRecord) -> StepRunner:
        """Raises ``StateError``."""
        try:
            return self._runners[record.kind]
        except KeyError:
            raise unknown_step(record.kind) from None


def _started(entry: ClaimEntry, records: Sequence[StepRecord]) -> ClaimEntry:
    return replace(entry, state=ClaimState.PREPARE_STARTED, steps=tuple(records))


def _as_driver_error(error: Exception, ref: ClaimRef) -> DriverError:
    if isinstance(error, DriverError):
        return error
    if isinstance(error, NothingDone):
        return error.error
    logger.error("claim %s: unexpected error in a step", ref, exc_info=error)
    return InternalError.of(error)
