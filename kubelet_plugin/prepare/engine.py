"""The prepare engine: what the DRA service calls, and what the plugin's main builds, starts and stops.

Responsible for callers: each claim's work goes on past the kubelet's deadline; a repeated call joins the work under way
and gets its outcome; one that cannot wait any longer is told at which step the work is. ``pilot`` runs the work without
keeping a thread for what waits, ``work`` knows what the work is, ``recovery`` puts the node right at the start.

Shared by an old and a new plugin process during a rolling update: all state is in ``state_folder``.

    <state_folder>/checkpoint.json           claims, journal of their steps
    <state_folder>/ending, ended             marks on claims whose steps are being undone, or are (``marks``)
    <state_folder>/checkpoint.json.corrupt-* what was set aside
    <state_folder>/locks                     one file for all locks (``claims.lock_names``)
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from dra_driver.cdi.store import CdiStore
from dra_driver.errors import DriverError, PrepareTimeout, StateError
from dra_driver.hardware.model import Machine
from kubelet_plugin.claims.allocated import ClaimReader
from kubelet_plugin.claims.entry import ClaimEntry
from kubelet_plugin.claims.lock_names import gpu_lock
from kubelet_plugin.claims.model import ClaimRef, Operation, PrepareOutcome, UnprepareOutcome
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.prepare.apply import Applier
from kubelet_plugin.prepare.cdi_file import CDI_FILE, CdiFileRunner
from kubelet_plugin.prepare.checkpoint import Checkpoint, CheckpointDamage
from kubelet_plugin.prepare.flight import RECOVERY, Flight, Flights
from kubelet_plugin.prepare.kinds import Kinds
from kubelet_plugin.prepare.locks import NamedLocks
from kubelet_plugin.prepare.pilot import ClaimFlight, Outcome, Pilot
from kubelet_plugin.prepare.recovery import Findings, Recovered, Recovery, lost_records
from kubelet_plugin.prepare.stuck import StuckWork, find_stuck
from kubelet_plugin.prepare.work import ClaimWork, CommonEdits, Node
from kubelet_plugin.prepare.workers import stopping

logger = logging.getLogger(__name__)

_LOCK_WAITERS_LEAVE = 0.5  # seconds
_START_SECONDS = 5.0  # for what an earlier process left; usually milliseconds
# A call keeps a thread of its server while it waits. Beyond so many, each waits only so long: a retry joins the work.
_PATIENT_CALLERS = 32
_IMPATIENT_SECONDS = 0.5


class PrepareListener(Protocol):
    """Who tells people what no answer of a call tells. Called from the engine's threads; must not call it back."""

    def checkpoint_damaged(self, damage: CheckpointDamage) -> None:
        """The checkpoint was found damaged and has been repaired."""
        ...

    def recovery_postponed(self, claims: Sequence[str]) -> None:
        """Claims (UIDs) that an earlier process left are put right later: see ``recovery.Recovered.postponed``."""
        ...

    def failed_late(self, operation: Operation, claim: ClaimRef, error: DriverError) -> None:
        """Work failed whose caller had been answered with a timeout."""
        ...


class PrepareEngine:
    """A ``claims.model.ClaimPreparer``. Between :meth:`start` and :meth:`stop` it may be called from any thread."""

    def __init__(
        self,
        *,
        api: ClaimReader,
        driver_name: str,
        machine: Callable[[], Machine],
        cdi: CdiStore,
        edits: CommonEdits,
        state_folder: Path,
        kinds: Kinds,
        policy: NodePolicy,
        listener: PrepareListener,
        start_seconds: float = _START_SECONDS,
    ) -> None:
        """``machine`` gives the current snapshot, at once. The node's pool has its name."""
        boot_id = policy.boot_id
        self._listener = listener
        self._state_folder = state_folder
        self._locks = NamedLocks(state_folder / "locks")
        self._checkpoint = Checkpoint(
            state_folder,
            boot_id,
            self._locks,
            unrecorded=lambda known: lost_records(cdi, kinds, boot_id, known),
            on_damage=listener.checkpoint_damaged,
        )
        applier = Applier({**kinds.runners, CDI_FILE: CdiFileRunner(cdi, kinds)}, boot_id, kinds.still_needed)
        self._work = ClaimWork(Node(driver_name, policy, api, machine, cdi, edits, kinds), self._checkpoint, applier)
        self._recovery = Recovery(
            self._checkpoint, cdi, applier, self._locks, kinds, boot_id, machine, self._work.restore
        )
        self._flights: Flights[Outcome] = Flights()
        self._pilot = Pilot(self._locks, self._land)
        self._callers = 0
        self._callers_lock = threading.Lock()
        self._start_seconds = start_seconds
        self._started, self._stopping = threading.Event(), threading.Event()

    def start(self) -> Recovered:
        """Make the folders and put right what an earlier process left. Raises ``StateError`` when it cannot.

        It waits for that no longer than ``start_seconds``; claims whose GPU another plugin works on, or that does not
        answer, are put right when that is over.
        """
        try:
            self._state_folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(
                f"cannot make state folder {self._state_folder}: {error.strerror or error}",
                hint="check that the plugin's data folder is mounted from the host and writable",
            ) from error
        self._started.set()
        recovered = self._recover()
        self._recovery.tidy()
        if recovered.postponed:
            self._listener.recovery_postponed(recovered.postponed)
        return recovered

    def put_right(self) -> bool:
        """Do what is not done of claims that nobody works on; False when that is not all. Raises ``StateError``.

        What a claim needs may change while it is prepared: its CDI file names files of the driver. One that is worked
        on right now may still be given what was needed before.
        """
        return self._recover().is_all

    def _recover(self) -> Recovered:
        deadline = time.monotonic() + self._start_seconds
        findings = Findings()
        flights = [Flight[Outcome](RECOVERY, entry.ref, None) for entry in self._checkpoint.entries().values()]
        for flight in flights:
            self._flights.add(flight)
            self._pilot.fly(flight, lambda each: self._recovery.put_right(each, findings))
        late = [each for each in flights if not each.wait(max(0.0, deadline - time.monotonic())) and each.give_up()]
        for flight in flights:
            if flight not in late and isinstance(flight.outcome, DriverError):
                logger.warning("claim %s cannot be put right yet: %s", flight.ref, flight.outcome)
                findings.add("failed", flight.ref.uid)
        return replace(findings.so_far(), postponed=tuple(flight.ref.uid for flight in late))

    def stop(self, timeout: float = 10.0) -> None:
        """1. refuse new calls; 2. wait for the work under way; 3. stop what waits for locks; 4. answer who still waits;
        5. write down which claims have ended.

        Work that is still in a step after ``timeout`` seconds goes on as long as the process lives; if it does not end
        by itself, the next process finds it in the journal.
        """
        self._stopping.set()
        deadline = time.monotonic() + timeout
        for flight in self._flights.under_way():
            if flight.operation != RECOVERY or not flight.waits_for:  # the next start does that as well
                flight.wait(max(0.0, deadline - time.monotonic()))
        self._locks.stop()
        self._pilot.stop()
        deadline = time.monotonic() + _LOCK_WAITERS_LEAVE
        for flight in self._flights.under_way():
            if not flight.wait(max(0.0, deadline - time.monotonic())):
                self._flights.land(flight, stopping())
        if self._started.is_set():
            self._write_down_marks()

    def _write_down_marks(self) -> None:
        """An earlier version of this plugin, if that is the next one, knows nothing of them."""
        try:
            self._checkpoint.tidy()
        except (StateError, OSError) as error:
            logger.warning("claims that have ended are still in the checkpoint, marked as such: %s", error)

    def entries(self) -> Mapping[str, ClaimEntry]:
        """All claims in the checkpoint, by UID. Raises ``StateError``."""
        return self._checkpoint.entries() if self._started.is_set() else self._checkpoint.look()

    def state_problem(self) -> str | None:
        """Why nothing can be written down, so that every prepare fails; None while all is well."""
        if os.access(self._state_folder, os.W_OK | os.X_OK):
            return None
        return f"state folder {self._state_folder} is gone or not writable; mend its mount and restart the plugin's pod"

    def try_gpu(self, gpu_uuid: str) -> AbstractContextManager[bool]:
        """The lock of a GPU, if nobody has it; tells whether it is held now. Raises ``StateError``."""
        return self._locks.try_hold(gpu_lock(gpu_uuid))

    def stuck(self, seconds: float) -> tuple[StuckWork, ...]:
        """The work that has been at one step for more than ``seconds``."""
        return find_stuck(self._flights.under_way(), seconds, time.monotonic())

    def prepare(self, claims: Sequence[ClaimRef], *, timeout: float) -> Mapping[str, PrepareOutcome]:
        """See ``claims.model.ClaimPreparer``."""
        outcomes = self._call(Operation.PREPARE, claims, timeout)
        return {uid: () if outcome is None else outcome for uid, outcome in outcomes.items()}

    def unprepare(self, claims: Sequence[ClaimRef], *, timeout: float) -> Mapping[str, UnprepareOutcome]:
        """See ``claims.model.ClaimPreparer``."""
        outcomes = self._call(Operation.UNPREPARE, claims, timeout)
        return {uid: outcome if isinstance(outcome, DriverError) else None for uid, outcome in outcomes.items()}

    def _call(self, operation: Operation, claims: Sequence[ClaimRef], timeout: float) -> dict[str, Outcome]:
        begun = time.monotonic()
        if self._stopping.is_set():
            return {claim.uid: stopping() for claim in claims}
        flights, new = self._flights.join(operation, claims)
        for flight in new:
            self._pilot.fly(flight, self._work.prepare if operation is Operation.PREPARE else self._work.unprepare)
        with self._callers_lock:
            self._callers += 1
            patient = self._callers <= _PATIENT_CALLERS
        try:
            deadline = begun + (timeout if patient else min(timeout, _IMPATIENT_SECONDS))
            return {uid: self._outcome(flight, deadline) for uid, flight in flights.items()}
        finally:
            with self._callers_lock:
                self._callers -= 1

    def _outcome(self, flight: ClaimFlight, deadline: float) -> Outcome:
        if flight.wait(max(0.0, deadline - time.monotonic())) or not flight.give_up():
            return flight.outcome
        in_front = next((each for each in self._flights.under_way() if flight.waits_for in each.holds), None)
        why = "" if in_front is None else f": {in_front.operation} of claim {in_front.ref} is at step: {in_front.step}"
        return PrepareTimeout(
            f"{flight.operation} of claim {flight.ref} still runs, at step: {flight.step}{why}",
            hint="the work goes on, and the next call gets its result",
        )

    def _land(self, flight: ClaimFlight, outcome: Outcome) -> None:
        """The work's end, on its thread. Whoever was answered with a timeout is told how it ended."""
        if not self._flights.land(flight, outcome):
            return
        if not isinstance(outcome, DriverError):
            logger.info("%s of claim %s is done now", flight.operation, flight.ref)
            return
        logger.warning("%s of claim %s failed in the end: %s", flight.operation, flight.ref, outcome)
        if not isinstance(flight.operation, Operation):
            return  # nobody asked for it, and the next call for the claim tells what is wrong
        try:
            self._listener.failed_late(flight.operation, flight.ref, outcome)
        except Exception:
            # Events and metrics are never a reason for the work to fail.
            logger.exception("the listener failed about claim %s", flight.ref)
