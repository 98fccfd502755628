"""The work of one claim, under the locks of all it may change, with one or two writes of the checkpoint.

Responsible for the order that makes a crash harmless:

prepare    read the claim; lock it, then its GPUs; check and plan; write "started"; do the steps; write "completed";
           or, where what is half done may as well be done at the next start: write "completed"; do the steps
unprepare  lock the claim, then its GPUs; (write "unprepare started" where a step needs it;) undo the steps; forget it

A claim that fails is rolled back. Each is worked on by itself, so a GPU that does not answer holds up nobody else;
claims that come together share the writes of the checkpoint, which is ``checkpoint``'s matter.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from dra_driver.cdi.spec import ContainerEdits
from dra_driver.cdi.store import CdiStore
from dra_driver.errors import DriverError
from dra_driver.hardware.model import Machine
from kubelet_plugin.claims.allocated import AllocatedClaim, AllocatedDevice, ClaimReader, ClaimReadError, read_claim
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState
from kubelet_plugin.claims.lock_names import claim_lock
from kubelet_plugin.claims.model import ClaimRef, PreparedDevice
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.prepare.admission import AdmittedClaim, admit
from kubelet_plugin.prepare.apply import Applier, Failure
from kubelet_plugin.prepare.checkpoint import Checkpoint
from kubelet_plugin.prepare.kinds import Kinds
from kubelet_plugin.prepare.pilot import ClaimFlight, FlightWork
from kubelet_plugin.prepare.plan import (
    CdiFacts,
    Plan,
    Standing,
    plan_again,
    plan_new,
    plan_unrecorded,
    standing,
    works,
)

logger = logging.getLogger(__name__)


class CommonEdits(Protocol):
    """What every container with a device needs of the driver (``dra_driver.cdi.edits.DriverEdits``)."""

    def common(self, driver_version: str) -> ContainerEdits:
        """Raises ``HardwareError``."""
        ...


@dataclass(frozen=True, slots=True)
class Node:
    """The node as the work needs it. ``machine`` gives the current snapshot or raises ``HardwareError``."""

    driver_name: str
    policy: NodePolicy
    api: ClaimReader
    machine: Callable[[], Machine]
    cdi: CdiStore
    edits: CommonEdits
    kinds: Kinds

    @property
    def boot_id(self) -> str:
        return self.policy.boot_id


class ClaimWork:
    """Prepares and unprepares claims; may run on several threads and in two processes at once."""

    def __init__(self, node: Node, checkpoint: Checkpoint, applier: Applier) -> None:
        self._node = node
        self._checkpoint = checkpoint
        self._applier = applier

    # -- prepare ------------------------------------------------------------------------------------------------------

    def prepare(self, flight: ClaimFlight) -> FlightWork:
        """Returns the prepared devices. Raises ``DriverError``."""
        flight.progress("reading the claim from the API server")
        read = self._read_claim(flight.ref)
        with (yield (claim_lock(flight.ref.uid),)):
            before = self._checkpoint.entries().get(flight.ref.uid)
            claim = self._or_as_recorded(read, before)
            machine = self._node.machine()
            locks = self._node.kinds.locks_of_devices(claim.devices, machine)
            if before is not None:
                # A lost record names no GPU until it is mended, and what it left may have to be undone.
                locks |= self._node.kinds.locks_of_entry(self._node.kinds.mended(before, lambda: machine))
            with (yield locks):
                return self._prepare_locked(flight, claim, machine)

    def _read_claim(self, ref: ClaimRef) -> AllocatedClaim | DriverError:
        try:
            return read_claim(self._node.api, ref, self._node.driver_name, self._node.policy.node)
        except DriverError as error:
            return error

    def _or_as_recorded(self, read: AllocatedClaim | DriverError, entry: ClaimEntry | None) -> AllocatedClaim:
        """A prepared claim is answered from its record while the API server is away: the kubelet has just read it."""
        if not isinstance(read, DriverError):
            return read
        if not isinstance(read, ClaimReadError) or entry is None or not entry.is_prepared(self._node.boot_id):
            raise read
        logger.warning("claim %s: answering from the checkpoint: %s", entry.ref, read)
        return _as_recorded(entry)

    def _prepare_locked(
        self, flight: ClaimFlight, claim: AllocatedClaim, machine: Machine
    ) -> tuple[PreparedDevice, ...]:
        flight.progress("checking the claim")
        admitted = admit(claim, machine, self._checkpoint.entries(), self._node.kinds, self._node.policy)
        plan = self._plan(flight, admitted)
        recorded = admitted.before if plan.repeats else self._announce(plan.entry)
        outcome = self._applier.apply(plan, flight.progress, admitted.others.entries)
        if isinstance(outcome, ClaimEntry):
            if outcome != recorded:
                self._checkpoint.update(put=[outcome])
            return outcome.prepared
        if outcome.entry is None:
            self._checkpoint.update(remove=[claim.ref.uid])
        elif not plan.repeats:
            self._checkpoint.update(put=[outcome.entry])  # it has only what may have been done
        raise outcome.error

    def _announce(self, entry: ClaimEntry) -> ClaimEntry:
        """Record what is about to be done. It outlives a power cut if the claim's CDI file may: a file without a record
        is somebody else's."""
        if self._applier.do_needs_intent(entry):
            entry = replace(entry, state=ClaimState.PREPARE_STARTED)
        if self._node.cdi.is_volatile:
            self._checkpoint.update(put=[entry])
        else:
            self._checkpoint.announce([entry])
        return entry

    def _plan(self, flight: ClaimFlight, admitted: AdmittedClaim) -> Plan:
        """The claim's plan, with what an earlier attempt left, and what is in the way, already gone."""
        machine, ref = admitted.others.machine, admitted.claim.ref
        facts = self._facts(admitted, machine)
        left, before = standing(admitted, facts.names, self._node.boot_id), admitted.before
        if left is Standing.PREPARED and before is not None:
            plan = plan_again(admitted, facts, before, self._node.kinds)
        elif left is Standing.UNRECORDED:
            plan = plan_unrecorded(admitted, facts, self._node.boot_id, works(admitted, self._node.kinds))
        elif before is None:
            plan = self._plan_new(flight, admitted, facts)
        else:
            whole = self._node.kinds.mended(before, lambda: machine)
            self._applier.undo(whole, flight.progress, admitted.others.entries)
            try:
                plan = self._plan_new(flight, admitted, facts)
            except DriverError:
                self._checkpoint.update(remove=[ref.uid])  # nothing of it is left
                raise
            plan = replace(plan, undo_first=before)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("plan for claim %s: %s", ref, "; ".join(plan.explain()))
        return plan

    def _plan_new(self, flight: ClaimFlight, admitted: AdmittedClaim, facts: CdiFacts) -> Plan:
        flight.progress("looking at the hardware")
        seen = [(work, work.maker.look(work.devices)) for work in works(admitted, self._node.kinds)]
        plan = plan_new(admitted, facts, self._node.boot_id, seen)
        for planned in plan.removals:
            flight.progress(planned.removal.does())
            planned.maker.remove(planned.removal)
        return plan

    def _facts(self, admitted: AdmittedClaim, machine: Machine) -> CdiFacts:
        return CdiFacts(
            names=self._node.cdi.names,
            common=self._node.edits.common(machine.driver_version),
            devices={device.allocated.device: device.kind.edits(device.place) for device in admitted.devices},
        )

    def _others(self, uid: str) -> tuple[ClaimEntry, ...]:
        return self._node.kinds.others(self._checkpoint.entries(), uid, self._node.boot_id, self._node.machine)

    # -- unprepare ----------------------------------------------------------------------------------------------------

    def unprepare(self, flight: ClaimFlight) -> FlightWork:
        """Returns None. Raises ``DriverError``."""
        uid = flight.ref.uid
        with (yield (claim_lock(uid),)):
            recorded = self._checkpoint.entries().get(uid)
            if recorded is None:
                self._node.cdi.remove(uid)  # a file without a record: of a crash, or of another driver
                return None
            entry = self._node.kinds.mended(recorded, self._node.machine)
            with (yield self._node.kinds.locks_of_entry(entry)):
                if self._applier.undo_needs_intent(entry):
                    if entry == recorded:
                        self._checkpoint.ends(uid)
                    else:  # mended: what is known of it now may not be known to the next process
                        self._checkpoint.update(put=[replace(entry, state=ClaimState.UNPREPARE_STARTED)])
                self._applier.undo(entry, flight.progress, self._others(uid))
                self._checkpoint.forget(uid)
        return None

    # -- recovery -----------------------------------------------------------------------------------------------------

    def restore(self, entry: ClaimEntry) -> None:
        """Do the steps of a prepared claim that are found not done. The caller holds its locks. Raises DriverError."""
        machine = self._node.machine()
        alone = {entry.ref.uid: entry}
        admitted = admit(_as_recorded(entry), machine, alone, self._node.kinds, self._node.policy)
        facts = self._facts(admitted, machine)
        if standing(admitted, facts.names, self._node.boot_id) is not Standing.PREPARED:
            return
        plan = plan_again(admitted, facts, entry, self._node.kinds)
        outcome = self._applier.apply(plan, lambda _step: None)
        if isinstance(outcome, Failure):
            raise outcome.error
        if outcome != entry:
            self._checkpoint.update(put=[outcome])


def _as_recorded(entry: ClaimEntry) -> AllocatedClaim:
    """The allocation that an entry was made from; its configurations were applied then."""
    devices = tuple(
        AllocatedDevice(
            request=next(iter(held.prepared.request_names), ""),
            pool=held.prepared.pool_name,
            device=held.prepared.device_name,
            share_id=held.prepared.share_id,
            admin_access=held.admin_access,
        )
        for held in entry.devices
    )
    return AllocatedClaim(entry.ref, devices)
