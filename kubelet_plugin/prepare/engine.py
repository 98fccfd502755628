"""The prepare engine: what the DRA service calls, and what the plugin's main builds, starts and stops.

Responsible for threads and waiting: each call's new work runs on a thread of its own, so that it goes on past the
kubelet's deadline; a repeated call joins the work under way and gets its answer; one that cannot wait any longer is
told at which step the work is. What the work is, ``work`` knows; ``recovery`` puts the node right at the start.

Shared by an old and a new plugin process during a rolling update: all state is in ``state_folder``.

    <state_folder>/checkpoint.json           claims, journal of their steps
    <state_folder>/checkpoint.json.corrupt-* what was set aside
    <state_folder>/locks                     one file for the locks checkpoint, device-<GPU UUID>, claim-<UID>
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from dra_driver.cdi.store import CdiStore
from dra_driver.errors import DriverError, PrepareTimeout, StateError
from dra_driver.hardware.model import Machine
from kubelet_plugin.claims.allocated import ClaimReader
from kubelet_plugin.claims.entry import ClaimEntry
from kubelet_plugin.claims.model import ClaimRef, PrepareAnswer, UnprepareAnswer
from kubelet_plugin.prepare.admission import Rules
from kubelet_plugin.prepare.apply import Applier
from kubelet_plugin.prepare.checkpoint import Checkpoint, CheckpointDamage
from kubelet_plugin.prepare.flight import Flights
from kubelet_plugin.prepare.locks import NamedLocks
from kubelet_plugin.prepare.node import EditsProvider, Node
from kubelet_plugin.prepare.recovery import Recovered, Recovery, lost_records
from kubelet_plugin.prepare.runners import MigTools, standard_runners
from kubelet_plugin.prepare.work import Answer, ClaimFlight, ClaimWork, gpu_lock
from kubelet_plugin.telling.failures import Operation

logger = logging.getLogger(__name__)

# Each call under way has a thread, mostly waiting for the disk or a lock. More calls than that wait for a thread.
_MAX_CALLS = 32
_MAX_READS = 8
_LOCK_WAITERS_LEAVE = 0.5  # seconds
_START_LOCK_SECONDS = 5.0  # for GPUs that an old plugin works on; usually milliseconds
_POSTPONED_PAUSE_SECONDS = 5.0


class PrepareListener(Protocol):
    """Who tells people what no answer of a call tells. Called from the engine's threads; must not call it back."""

    def checkpoint_damaged(self, damage: CheckpointDamage) -> None:
        """The checkpoint was found damaged and has been repaired."""
        ...

    def recovery_postponed(self, claims: Sequence[str]) -> None:
        """Claims (UIDs) that an earlier process left are put right later: somebody else works on their GPUs."""
        ...

    def failed_late(self, operation: Operation, claim: ClaimRef, error: DriverError) -> None:
        """Work failed whose caller had been answered with a timeout."""
        ...


class PrepareEngine:
    """A ``prepare.model.ClaimPreparer``. Between :meth:`start` and :meth:`stop` it may be called from any thread."""

    def __init__(
        self,
        *,
        api: ClaimReader,
        driver_name: str,
        machine: Callable[[], Machine],
        cdi: CdiStore,
        edits: EditsProvider,
        state_folder: Path,
        mig: MigTools,
        rules: Rules,
        listener: PrepareListener,
        start_lock_seconds: float = _START_LOCK_SECONDS,
        postponed_pause: float = _POSTPONED_PAUSE_SECONDS,
    ) -> None:
        """``machine`` gives the current snapshot, at once. The node's pool has its name.

        ``start_lock_seconds``: how long the start waits for GPUs that another plugin works on; what is left then is
        tried again after each ``postponed_pause``.
        """
        boot_id = rules.boot_id
        node = Node(driver_name, rules.node, rules, api, machine, mig.hardware, cdi, edits)
        self._listener = listener
        self._state_folder = state_folder
        self._locks = NamedLocks(state_folder / "locks")
        self._checkpoint = Checkpoint(
            state_folder,
            boot_id,
            self._locks,
            unrecorded=lambda known: lost_records(cdi, boot_id, known),
            on_damage=listener.checkpoint_damaged,
        )
        applier = Applier(standard_runners(cdi, mig), boot_id)
        self._readers = ThreadPoolExecutor(_MAX_READS, thread_name_prefix="claim-read")
        self._calls = ThreadPoolExecutor(_MAX_CALLS, thread_name_prefix="claim-work")
        self._work = ClaimWork(node, self._checkpoint, applier, self._locks, self._readers)
        self._recovery = Recovery(self._checkpoint, cdi, applier, self._locks, boot_id, self._work.restore)
        self._flights: Flights[Answer] = Flights()
        self._start_lock_seconds = start_lock_seconds
        self._postponed_pause = postponed_pause
        self._stopping = threading.Event()
        self._postponed: threading.Thread | None = None

    def start(self) -> Recovered:
        """Make the folders and put right what an earlier process left. Raises ``StateError`` when it cannot.

        It takes no longer than the work itself and ``start_lock_seconds``; what has to wait for somebody else is put
        right later, on the thread ``recovery``.
        """
        try:
            self._state_folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(
                f"cannot make state folder {self._state_folder}: {error.strerror or error}",
                hint="check that the plugin's data folder is mounted from the host and writable",
            ) from error
        recovered = self._recovery.run(self._start_lock_seconds)
        if recovered.postponed:
            self._listener.recovery_postponed(recovered.postponed)
            self._postponed = threading.Thread(
                target=self._recover_later, args=(recovered.postponed,), name="recovery", daemon=True
            )
            self._postponed.start()
        return recovered

    def put_right(self) -> bool:
        """Do what is not done of claims that nobody works on; False when some cannot be yet. Raises ``StateError``.

        What a claim needs may change while it is prepared: its CDI file names files of the driver.
        """
        done = self._recovery.claims(self._checkpoint.entries(), self._start_lock_seconds)
        return not done.postponed and not done.failed

    def _recover_later(self, uids: Sequence[str]) -> None:
        while uids and not self._stopping.wait(self._postponed_pause):
            try:
                recovered = self._recovery.claims(uids, self._start_lock_seconds)
            except StateError as error:
                logger.warning("claims of an earlier process cannot be put right yet: %s", error)
            except Exception:
                # Thread boundary: the kubelet's next call for such a claim puts it right all the same.
                logger.exception("putting claims of an earlier process right broke")
                return
            else:
                uids = recovered.postponed
                logger.info("state of earlier processes, later", extra={"recovered": recovered})

    def stop(self, timeout: float = 10.0) -> None:
        """1. refuse new calls; 2. wait for the work under way; 3. stop what waits for locks; 4. answer who still waits.

        Work that is still in a step after ``timeout`` seconds goes on as long as the process lives; if it does not end
        by itself, the next process finds it in the journal.
        """
        self._stopping.set()
        deadline = time.monotonic() + timeout
        for flight in self._flights.under_way():
            flight.wait(max(0.0, deadline - time.monotonic()))
        self._locks.stop()
        self._calls.shutdown(wait=False, cancel_futures=True)
        self._readers.shutdown(wait=False, cancel_futures=True)
        if self._postponed is not None:
            self._postponed.join(_LOCK_WAITERS_LEAVE)
        for flight in self._flights.under_way():
            if not flight.wait(_LOCK_WAITERS_LEAVE):
                self._flights.land(flight, _stopping())

    def entries(self) -> Mapping[str, ClaimEntry]:
        """All claims in the checkpoint, by UID. Raises ``StateError``."""
        return self._checkpoint.entries()

    def try_gpu(self, gpu_uuid: str) -> AbstractContextManager[bool]:
        """The lock of a GPU, if nobody has it; tells whether it is held now. Raises ``StateError``."""
        return self._locks.try_hold(gpu_lock(gpu_uuid))

    def prepare(self, claims: Sequence[ClaimRef], *, timeout: float) -> Mapping[str, PrepareAnswer]:
        """See ``prepare.model.ClaimPreparer``."""
        answers = self._call(Operation.PREPARE, claims, timeout)
        return {uid: () if answer is None else answer for uid, answer in answers.items()}

    def unprepare(self, claims: Sequence[ClaimRef], *, timeout: float) -> Mapping[str, UnprepareAnswer]:
        """See ``prepare.model.ClaimPreparer``."""
        answers = self._call(Operation.UNPREPARE, claims, timeout)
        return {uid: answer if isinstance(answer, DriverError) else None for uid, answer in answers.items()}

    def _call(self, operation: Operation, claims: Sequence[ClaimRef], timeout: float) -> dict[str, Answer]:
        deadline = time.monotonic() + timeout
        if self._stopping.is_set():
            return {claim.uid: _stopping() for claim in claims}
        flights, new = self._flights.join(operation, claims)
        at_once = [flight for flight in new if flight.after is None]
        batches = [at_once] if at_once else []
        batches += [[flight] for flight in new if flight.after is not None]
        for batch in batches:
            self._start(batch)
        return {uid: _answer(flight, deadline) for uid, flight in flights.items()}

    def _start(self, batch: Sequence[ClaimFlight]) -> None:
        # The thread gets the caller's context, so that its log lines carry the id of the call.
        context = contextvars.copy_context()
        try:
            self._calls.submit(context.run, self._fly, batch)
        except RuntimeError:  # stopped between the question and here
            for flight in batch:
                self._flights.land(flight, _stopping())

    def _fly(self, flights: Sequence[ClaimFlight]) -> None:
        """One batch, from beginning to answers; the boundary of its thread."""
        for flight in flights:
            before = flight.after  # which stop() may take away at any moment
            if before is not None:
                flight.progress(f"waiting for the {before.operation} of the same claim")
                before.wait(None)
        answers = self._answers(flights[0].operation, flights)
        for flight in flights:
            if self._flights.land(flight, answers[flight.ref.uid]):
                self._tell(flight, answers[flight.ref.uid])

    def _answers(self, operation: Operation, flights: Sequence[ClaimFlight]) -> Mapping[str, Answer]:
        try:
            if operation is Operation.PREPARE:
                return self._work.prepare(flights)
            return self._work.unprepare(flights)
        except DriverError as error:
            return {flight.ref.uid: error for flight in flights}
        except Exception as error:
            # The thread's boundary: without an answer the kubelet would wait for its deadline, each time.
            logger.exception("unexpected error in %s", operation)
            answer = DriverError(
                f"unexpected {type(error).__name__}: {error}",
                hint="this is a defect of the driver; its log has the details",
            )
            return {flight.ref.uid: answer for flight in flights}

    def _tell(self, flight: ClaimFlight, answer: Answer) -> None:
        """How work ended that was answered with a timeout."""
        if not isinstance(answer, DriverError):
            logger.info("%s of claim %s is done now", flight.operation, flight.ref)
            return
        logger.warning("%s of claim %s failed in the end: %s", flight.operation, flight.ref, answer)
        try:
            self._listener.failed_late(flight.operation, flight.ref, answer)
        except Exception:
            # Events and metrics are never a reason for the work to fail.
            logger.exception("the listener failed about claim %s", flight.ref)


def _answer(flight: ClaimFlight, deadline: float) -> Answer:
    if flight.wait(max(0.0, deadline - time.monotonic())) or not flight.give_up():
        return flight.answer
    return PrepareTimeout(
        f"{flight.operation} of claim {flight.ref} still runs, at step: {flight.step}",
        hint="the work goes on, and the next call gets its result",
    )


def _stopping() -> StateError:
    return StateError("the plugin is stopping", hint="its successor answers the kubelet's next call")
