"""Carries plans out and undoes them: all steps of a claim or none.

Responsible for order, for seeing whether a step is done where it may be, and for rolling back when one fails. What is
written down when is the caller's business: the records before :meth:`Applier.apply`, and again, with what the steps
brought about, after it. :meth:`Applier.undo` needs only what was there before: a crash in between loses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from dra_driver.errors import DriverError, StateError
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, StepRecord
from kubelet_plugin.prepare.plan import Plan, Step

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]


class NothingDone(Exception):
    """A step failed and says that it changed nothing, so it must not be undone: what is there is somebody else's."""

    def __init__(self, error: DriverError) -> None:
        super().__init__(str(error))
        self.error = error


class StepRunner(Protocol):
    """Does and undoes the steps of one kind. Each method may be called again after a crash in the middle of it.

    ``done``: the records, with results, of the steps of the same claim that came before.
    """

    undo_needs_intent: bool  # whether a half-done undo must be finished at the next start, not at the next unprepare
    survives_reboot: bool  # whether what was done in an earlier boot may still be there, to be undone

    def observe(self, step: Any, done: Sequence[StepRecord]) -> Mapping[str, str] | None:
        """What doing the step brought about, seen on the node itself; None when it is not done."""
        ...

    def do(self, step: Any, done: Sequence[StepRecord]) -> Mapping[str, str]:
        """What was brought about, for the journal. Raises ``DriverError``, or :class:`NothingDone`."""
        ...

    def undo(self, claim_uid: str, record: StepRecord) -> None:
        """Nothing to undo is success. Raises ``DriverError``."""
        ...


@dataclass(frozen=True, slots=True)
class Failure:
    """A plan that could not be carried out. ``entry`` is what is left to undo, None when everything was undone."""

    error: DriverError
    entry: ClaimEntry | None


class Applier:
    """Runs steps with ``runners``, by kind. ``boot_id``: the present boot's."""

    def __init__(self, runners: Mapping[str, StepRunner], boot_id: str) -> None:
        self._runners = dict(runners)
        self._boot_id = boot_id

    def apply(self, plan: Plan, progress: Progress) -> ClaimEntry | Failure:
        """Do the steps; the claim's finished record, or a :class:`Failure` after rolling back.

        Of a plan that repeats only what is found not done is done, and nothing is rolled back: its claim was prepared
        before, and containers may use it.
        """
        records = list(plan.entry.steps)
        for position, step in enumerate(plan.steps):
            progress(step.does())
            try:
                records[position] = replace(records[position], result=self._done(step, plan, records[:position]))
            except Exception as error:  # noqa: BLE001 - whatever went wrong, a half-prepared claim must not stay
                failure = _as_driver_error(error, plan)
                if plan.repeats:
                    return Failure(failure, plan.entry)
                touched = position if isinstance(error, NothingDone) else position + 1
                return self._roll_back(_started(plan.entry, records[:touched]), failure, progress)
        return replace(plan.entry, steps=tuple(records))

    def _done(self, step: Step, plan: Plan, done: Sequence[StepRecord]) -> Mapping[str, str]:
        runner = self._runner(step.kind)
        observed = runner.observe(step, done) if plan.repeats else None
        return runner.do(step, done) if observed is None else observed

    def undo(self, entry: ClaimEntry, progress: Progress) -> None:
        """Undo all steps of ``entry``, the last first, done or not. Raises ``DriverError`` at the first that cannot.

        What a reboot has undone is left alone: whatever looks like it was made by somebody else since.
        """
        for record in reversed(entry.steps):
            runner = self._runner(record.kind)
            if entry.boot_id == self._boot_id or runner.survives_reboot:
                progress(f"undo {record.kind}")
                runner.undo(entry.ref.uid, record)

    def undo_needs_intent(self, entry: ClaimEntry) -> bool:
        """Whether the record has to say that undoing has begun, before it begins."""
        return any(self._runner(record.kind).undo_needs_intent for record in entry.steps)

    def _roll_back(self, entry: ClaimEntry, failure: DriverError, progress: Progress) -> Failure:
        """``entry`` has the steps that may have been done."""
        try:
            self.undo(entry, progress)
        except DriverError as error:
            logger.error(  # noqa: TRY400 - both are expected errors with a sentence of their own
                "claim %s: rolling back failed, the next attempt goes on with it: %s", entry.ref, error
            )
            return Failure(failure, entry)
        return Failure(failure, None)

    def _runner(self, kind: str) -> StepRunner:
        try:
            return self._runners[kind]
        except KeyError:
            raise StateError(
                f"the checkpoint has a step of kind {kind!r}, which this version of the driver cannot undo",
                hint="run the version that prepared the claim until it is unprepared",
            ) from None


def _started(entry: ClaimEntry, records: list[StepRecord]) -> ClaimEntry:
    return replace(entry, state=ClaimState.PREPARE_STARTED, steps=tuple(records))


def _as_driver_error(error: Exception, plan: Plan) -> DriverError:
    if isinstance(error, DriverError):
        return error
    if isinstance(error, NothingDone):
        return error.error
    logger.error("claim %s: unexpected error in a step", plan.ref, exc_info=error)
    return DriverError(
        f"unexpected {type(error).__name__}: {error}", hint="this is a defect of the driver; its log has the details"
    )
