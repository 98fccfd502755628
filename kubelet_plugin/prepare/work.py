"""The work of one call: its claims together, under the locks of all their GPUs, with two writes of the checkpoint.

Responsible for the order that makes a crash harmless:

prepare    read claims; lock claims, then GPUs; check and plan; write "started"; do the steps; write "completed"
unprepare  lock claims, then GPUs; (write "unprepare started" where a step needs it;) undo the steps; forget the claims

Each claim succeeds or fails by itself; a claim that fails is rolled back. ``engine`` decides which calls become one
batch of work and on which thread it runs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import replace

from dra_driver.cdi.spec import ContainerEdits
from dra_driver.errors import DeviceNotFound, DriverError
from dra_driver.hardware.model import Machine
from kubelet_plugin.claims.allocated import AllocatedClaim, AllocatedDevice, ClaimReadError, read_claim
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState
from kubelet_plugin.claims.model import ClaimRef, PreparedDevice
from kubelet_plugin.kinds.mig.hardware import look
from kubelet_plugin.kinds.mig.lost import has_lost_mig_devices, with_lost_steps
from kubelet_plugin.kinds.mig.owners import owners
from kubelet_plugin.kinds.mig.runners import remove
from kubelet_plugin.prepare.admission import AdmittedClaim, AdmittedDevice, admit, find_device
from kubelet_plugin.prepare.apply import Applier, Failure
from kubelet_plugin.prepare.checkpoint import Checkpoint
from kubelet_plugin.prepare.flight import Flight
from kubelet_plugin.prepare.locks import NamedLocks
from kubelet_plugin.prepare.node import Node
from kubelet_plugin.prepare.plan import CdiFacts, Plan, Standing, gpus_to_look_at, is_prepared, plan_prepare, standing

logger = logging.getLogger(__name__)

Answer = tuple[PreparedDevice, ...] | DriverError | None
ClaimFlight = Flight[Answer]


class ClaimWork:
    """Prepares and unprepares batches of claims; may run on several threads and in two processes at once."""

    def __init__(
        self, node: Node, checkpoint: Checkpoint, applier: Applier, locks: NamedLocks, readers: Executor
    ) -> None:
        self._node = node
        self._checkpoint = checkpoint
        self._applier = applier
        self._locks = locks
        self._readers = readers

    # -- prepare ------------------------------------------------------------------------------------------------------

    def prepare(self, flights: Sequence[ClaimFlight]) -> dict[str, Answer]:
        """The answer for each claim, by UID. Raises ``DriverError`` when none could even be tried."""
        claims = self._read_claims(flights)
        with self._hold_claims(flights):
            entries = self._checkpoint.entries()
            claims = {uid: self._or_as_recorded(claim, entries.get(uid)) for uid, claim in claims.items()}
            machine = self._node.machine()
            with self._hold_gpus(flights, self._gpus_of(claims, entries, machine)):
                answers = self._prepare_locked(flights, claims, machine)
        return answers

    def _read_claims(self, flights: Sequence[ClaimFlight]) -> dict[str, AllocatedClaim | DriverError]:
        for flight in flights:
            flight.progress("reading the claim from the API server")
        reads = [(flight.ref.uid, self._readers.submit(self._read_claim, flight.ref)) for flight in flights[1:]]
        claims = {flights[0].ref.uid: self._read_claim(flights[0].ref)}
        claims.update((uid, read.result()) for uid, read in reads)
        return claims

    def _read_claim(self, ref: ClaimRef) -> AllocatedClaim | DriverError:
        try:
            return read_claim(self._node.api, ref, self._node.driver_name, self._node.pool)
        except DriverError as error:
            return error

    def _or_as_recorded(
        self, claim: AllocatedClaim | DriverError, entry: ClaimEntry | None
    ) -> AllocatedClaim | DriverError:
        """A prepared claim is answered from its record while the API server is away: the kubelet has just read it."""
        if not isinstance(claim, ClaimReadError) or entry is None or not is_prepared(entry, self._node.boot_id):
            return claim
        logger.warning("claim %s: answering from the checkpoint: %s", entry.ref, claim)
        return _as_recorded(entry)

    def _prepare_locked(
        self,
        flights: Sequence[ClaimFlight],
        claims: Mapping[str, AllocatedClaim | DriverError],
        machine: Machine,
    ) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        plans: list[tuple[ClaimFlight, Plan]] = []
        entries = dict(self._checkpoint.entries())
        undone: list[str] = []
        for flight in flights:
            claim = claims[flight.ref.uid]
            plan = claim if isinstance(claim, DriverError) else self._plan(flight, claim, machine, entries, undone)
            if isinstance(plan, DriverError):
                answers[flight.ref.uid] = plan
            else:
                entries[flight.ref.uid] = plan.entry  # the next claim of this batch must not get the same device
                plans.append((flight, plan))
        fresh = [plan.entry for _flight, plan in plans if not plan.repeats]
        self._checkpoint.announce(replace(entry, state=ClaimState.PREPARE_STARTED) for entry in fresh)
        changed: list[ClaimEntry] = []
        for flight, plan in plans:
            outcome = self._applier.apply(plan, flight.progress)
            if isinstance(outcome, Failure):
                answers[flight.ref.uid] = outcome.error
                if outcome.entry is None:
                    undone.append(flight.ref.uid)
                elif not plan.repeats:
                    changed.append(outcome.entry)  # it has only what may have been done
            else:
                answers[flight.ref.uid] = outcome.answers
                if outcome != self._checkpoint.entries().get(flight.ref.uid):
                    changed.append(outcome)
        self._checkpoint.update(put=changed, remove=undone)
        return answers

    def _plan(
        self,
        flight: ClaimFlight,
        claim: AllocatedClaim,
        machine: Machine,
        entries: Mapping[str, ClaimEntry],
        undone: list[str],
    ) -> Plan | DriverError:
        """The claim's plan, with what an earlier attempt left, and what is in the way, already gone.

        A claim of which nothing is left now and that cannot be planned is added to ``undone``.
        """
        flight.progress("checking the claim")
        cleared = False
        try:
            admitted = admit(claim, machine, entries, self._node.rules)
            facts = self._facts(admitted, machine)
            left = standing(admitted, facts.names, self._node.boot_id)
            if left is Standing.STALE and admitted.before is not None:
                self._applier.undo(self._whole(admitted.before), flight.progress)
                cleared = True
            plan = self._plan_now(flight, admitted, facts, left, machine, entries)
        except DriverError as error:
            if cleared:
                undone.append(claim.ref.uid)
            return error
        logger.debug("plan for claim %s: %s", claim.ref, "; ".join(plan.explain()))
        return plan

    def _plan_now(
        self,
        flight: ClaimFlight,
        admitted: AdmittedClaim,
        facts: CdiFacts,
        left: Standing,
        machine: Machine,
        entries: Mapping[str, ClaimEntry],
    ) -> Plan:
        flight.progress("asking the GPUs for their MIG state")
        now = {uuid: look(self._node.mig, uuid) for uuid in gpus_to_look_at(admitted, left)}
        others = (entry for uid, entry in entries.items() if uid != admitted.claim.ref.uid)
        plan = plan_prepare(admitted, facts, self._node.boot_id, now, owners(others, machine, self._node.boot_id))
        for removal in plan.removals:
            flight.progress(removal.does())
            remove(self._node.mig, removal)
        return plan

    def _facts(self, admitted: AdmittedClaim, machine: Machine) -> CdiFacts:
        return CdiFacts(
            names=self._node.cdi.names,
            common=self._node.edits.common(machine.driver_version),
            devices={device.allocated.device: self._edits(device) for device in admitted.devices},
        )

    def _edits(self, device: AdmittedDevice) -> ContainerEdits:
        if device.place is None:
            return self._node.edits.gpu(device.gpu)
        return self._node.edits.mig_parent(device.gpu, device.place.profile_name)

    # -- unprepare ----------------------------------------------------------------------------------------------------

    def unprepare(self, flights: Sequence[ClaimFlight]) -> dict[str, Answer]:
        """None or an error for each claim, by UID. Raises ``DriverError`` when none could even be tried."""
        with self._hold_claims(flights):
            entries = self._checkpoint.entries()
            known = {flight.ref.uid: self._whole_or_why(entries.get(flight.ref.uid)) for flight in flights}
            gpus = {gpu for entry in known.values() if isinstance(entry, ClaimEntry) for gpu in entry.gpu_uuids}
            with self._hold_gpus(flights, gpus):
                answers = self._unprepare_locked(flights, known)
        return answers

    def _unprepare_locked(
        self, flights: Sequence[ClaimFlight], known: Mapping[str, ClaimEntry | DriverError | None]
    ) -> dict[str, Answer]:
        recorded = [entry for entry in known.values() if isinstance(entry, ClaimEntry)]
        begun = [entry for entry in recorded if self._applier.undo_needs_intent(entry)]
        # Not as lasting as the intent of a prepare: a power cut undoes everything that needs this one.
        self._checkpoint.update(put=[replace(entry, state=ClaimState.UNPREPARE_STARTED) for entry in begun])
        answers: dict[str, Answer] = {}
        for flight in flights:
            entry = known[flight.ref.uid]
            try:
                if isinstance(entry, DriverError):
                    answers[flight.ref.uid] = entry
                    continue
                if entry is None:
                    self._node.cdi.remove(flight.ref.uid)  # a file without a record: of a crash, or of another driver
                else:
                    self._applier.undo(entry, flight.progress)
                answers[flight.ref.uid] = None
            except DriverError as error:
                answers[flight.ref.uid] = error
        self._checkpoint.update(remove=[uid for uid, answer in answers.items() if answer is None and known[uid]])
        return answers

    def _whole(self, entry: ClaimEntry) -> ClaimEntry:
        """``entry`` with all that undoing it needs, also when its record was lost. Raises ``HardwareError``."""
        if not has_lost_mig_devices(entry):
            return entry
        return with_lost_steps(entry, self._node.machine(), self._node.rules)

    def _whole_or_why(self, entry: ClaimEntry | None) -> ClaimEntry | DriverError | None:
        try:
            return entry and self._whole(entry)
        except DriverError as error:
            return error

    # -- recovery -----------------------------------------------------------------------------------------------------

    def restore(self, entry: ClaimEntry) -> None:
        """Do the steps of a prepared claim that are found not done. The caller holds its locks. Raises DriverError."""
        machine = self._node.machine()
        admitted = admit(_as_recorded(entry), machine, {entry.ref.uid: entry}, self._node.rules)
        facts = self._facts(admitted, machine)
        if standing(admitted, facts.names, self._node.boot_id) is not Standing.PREPARED:
            return
        plan = plan_prepare(admitted, facts, self._node.boot_id, {}, owners((), machine, self._node.boot_id))
        outcome = self._applier.apply(plan, lambda _step: None)
        if isinstance(outcome, Failure):
            raise outcome.error
        if outcome != entry:
            self._checkpoint.update(put=[outcome])

    # -- locks --------------------------------------------------------------------------------------------------------

    def _hold_claims(self, flights: Sequence[ClaimFlight]) -> AbstractContextManager[None]:
        return self._hold(flights, (claim_lock(flight.ref.uid) for flight in flights))

    def _hold_gpus(self, flights: Sequence[ClaimFlight], uuids: Iterable[str]) -> AbstractContextManager[None]:
        return self._hold(flights, map(gpu_lock, uuids))

    def _hold(self, flights: Sequence[ClaimFlight], names: Iterable[str]) -> AbstractContextManager[None]:
        def waiting(name: str) -> None:
            for flight in flights:
                flight.progress(f"waiting for lock {name}, which another operation holds")

        return self._locks.hold(names, waiting)

    def _gpus_of(
        self,
        claims: Mapping[str, AllocatedClaim | DriverError],
        entries: Mapping[str, ClaimEntry],
        machine: Machine,
    ) -> set[str]:
        """GPUs that the claims have or will have. Admin access changes no device, so it waits for none."""
        uuids: set[str] = set()
        for uid, claim in claims.items():
            if uid in entries:
                uuids |= entries[uid].gpu_uuids
            if not isinstance(claim, DriverError):
                uuids |= _gpu_uuids(claim.devices, machine)
        return uuids


def claim_lock(uid: str) -> str:
    return f"claim-{uid}"


def gpu_lock(uuid: str) -> str:
    return f"device-{uuid}"


def _gpu_uuids(devices: Iterable[AllocatedDevice], machine: Machine) -> set[str]:
    uuids: set[str] = set()
    for device in devices:
        if not device.admin_access:
            try:
                uuids.add(find_device(machine, device.device).gpu.uuid)
            except DeviceNotFound:
                continue  # refused later, with its reason
    return uuids


def _as_recorded(entry: ClaimEntry) -> AllocatedClaim:
    """The allocation that an entry was made from; its configurations were applied then."""
    devices = tuple(
        AllocatedDevice(
            request=held.answer.request_names[0],
            pool=held.answer.pool_name,
            device=held.answer.device_name,
            share_id=held.answer.share_id,
            admin_access=held.admin_access,
        )
        for held in entry.devices
    )
    return AllocatedClaim(entry.ref, devices)
