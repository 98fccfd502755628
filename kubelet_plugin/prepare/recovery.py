"""What a new plugin process finds: claims half prepared or half unprepared, files half written, lost records.

It looks at the node, not only at the journal, and leaves alone what another plugin process is working on (it holds that
claim's lock). Nothing here stops the plugin: what cannot be put right now is logged and tried again by the next prepare
or unprepare of that claim. Each claim is a flight of its own, so a GPU that does not answer, or that an old plugin
works on, keeps neither the others nor the start waiting; such claims are named, and put right as soon as they can be.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from dra_driver.cdi.store import CdiStore
from dra_driver.errors import DriverError
from dra_driver.hardware.model import Machine
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, HeldDevice, StepRecord
from kubelet_plugin.claims.lock_names import admin_lock, claim_lock
from kubelet_plugin.claims.model import ClaimRef, PreparedDevice
from kubelet_plugin.prepare.apply import Applier
from kubelet_plugin.prepare.cdi_file import CDI_FILE
from kubelet_plugin.prepare.checkpoint import Checkpoint
from kubelet_plugin.prepare.kinds import Kinds
from kubelet_plugin.prepare.locks import NamedLocks
from kubelet_plugin.prepare.pilot import ClaimFlight, FlightWork

logger = logging.getLogger(__name__)

_SHARE = re.compile(r"(.+)-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.ASCII)  # a device and a share id, a UUID
# What is undone in any case, and as what it is told.
_UNDONE = {ClaimState.PREPARE_STARTED: "rolled_back", ClaimState.UNPREPARE_STARTED: "unprepared"}


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was put right, as claim UIDs."""

    rolled_back: tuple[str, ...] = ()  # begun prepares undone; the kubelet asks for them again
    unprepared: tuple[str, ...] = ()  # begun unprepares finished
    restored: tuple[str, ...] = ()  # prepared claims whose steps were done again where needed
    outlived: tuple[str, ...] = ()  # claims prepared in an earlier boot, undone and forgotten
    postponed: tuple[str, ...] = ()  # claims whose GPU another plugin works on, or that does not answer
    failed: tuple[str, ...] = ()  # claims that cannot be put right yet, as the log says
    busy: tuple[str, ...] = ()  # claims that are being prepared, unprepared or put right already

    @property
    def is_all(self) -> bool:
        """Whether every claim is right now."""
        return not (self.postponed or self.failed or self.busy)


class Findings:
    """Collects what becomes of claims, from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, list[str]] = {}

    def add(self, field: str, uid: str) -> None:
        """``field`` of :class:`Recovered`."""
        with self._lock:
            self._found.setdefault(field, []).append(uid)

    def so_far(self) -> Recovered:
        with self._lock:
            return Recovered(**{field: tuple(sorted(uids)) for field, uids in self._found.items()})


class Recovery:
    """``restore`` does what is not done of a prepared claim (``work.ClaimWork.restore``)."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        cdi: CdiStore,
        applier: Applier,
        locks: NamedLocks,
        kinds: Kinds,
        boot_id: str,
        machine: Callable[[], Machine],
        restore: Callable[[ClaimEntry], None],
    ) -> None:
        self._checkpoint = checkpoint
        self._cdi = cdi
        self._applier = applier
        self._locks = locks
        self._kinds = kinds
        self._boot_id = boot_id
        self._machine = machine
        self._restore = restore

    def put_right(self, flight: ClaimFlight, findings: Findings) -> FlightWork:
        """One claim. What cannot be done is told and logged. Raises ``StateError`` when it cannot even be looked at."""
        uid = flight.ref.uid
        with self._locks.try_hold(claim_lock(uid)) as ours:
            if not ours:
                findings.add("busy", uid)
                return None
            entry = self._checkpoint.entries().get(uid)
            undone = None if entry is None else self._undone_as(entry)
            if entry is None or (undone is None and entry.state is not ClaimState.COMPLETED):
                return None
            looked_at = {admin_lock(held.gpu_uuid) for held in entry.devices if held.admin_access and held.gpu_uuid}
            with (yield self._kinds.locks_of_entry(entry) | looked_at):
                try:
                    if undone is None:
                        flight.progress("looking at what was prepared")
                        self._restore(entry)
                    else:
                        others = self._kinds.others(self._checkpoint.entries(), uid, self._boot_id, self._machine)
                        self._applier.undo(entry, flight.progress, others)
                        self._checkpoint.forget(uid)
                        logger.info("claim %s was left %s; undone", entry.ref, entry.state)
                except DriverError as error:
                    logger.warning(
                        "claim %s was left %s and cannot be put right yet: %s", entry.ref, entry.state, error
                    )
                    findings.add("failed", uid)
                    return None
        findings.add(undone or "restored", uid)
        return None

    def _undone_as(self, entry: ClaimEntry) -> str | None:
        """The field of :class:`Recovered` for a claim that has to be undone; None for one that has not."""
        undone = _UNDONE.get(entry.state)
        if undone is None and entry.boot_id != self._boot_id:
            # Its containers are gone and device numbers may have changed. The kubelet has prepared again what it still
            # wants; of a claim that it forgot, or unprepared just before a power cut, we never hear.
            return "outlived"
        return undone

    def tidy(self) -> None:
        """Remove what killed writers left. Raises ``StateError``."""
        self._checkpoint.tidy()
        for path, uid in self._cdi.temporaries().items():
            with self._locks.try_hold(claim_lock(uid)) as ours:
                if ours:
                    path.unlink(missing_ok=True)


def lost_records(cdi: CdiStore, kinds: Kinds, boot_id: str, known: Collection[str]) -> Sequence[ClaimEntry]:
    """Records for claims that have a CDI file but are not in ``known``, as far as the files tell."""
    return [_from_cdi_file(cdi, kinds, boot_id, uid) for uid in cdi.claim_uids() if uid not in known]


def _from_cdi_file(cdi: CdiStore, kinds: Kinds, boot_id: str, uid: str) -> ClaimEntry:
    try:
        spec = cdi.read(uid)
    except DriverError as error:
        logger.warning("claim %s has no record, and its CDI file does not help: %s", uid, error)
        spec = None
    prefix = cdi.names.device_name(uid, "")
    names = [device.name.removeprefix(prefix) for device in spec.devices] if spec else []
    return ClaimEntry(
        ref=ClaimRef("", "", uid),
        state=ClaimState.RECORD_LOST,
        boot_id=boot_id,
        devices=tuple(HeldDevice(_prepared(cdi, kinds, uid, name), gpu_uuid="") for name in names),
        steps=(StepRecord(CDI_FILE),),
    )


def _prepared(cdi: CdiStore, kinds: Kinds, uid: str, name: str) -> PreparedDevice:
    """A share's id comes first: its last groups may look like the end of a MIG device's name."""
    share = _SHARE.fullmatch(name)
    device, share_id = (share[1], share[2]) if share and kinds.of(share[1]) is not None else (name, None)
    return PreparedDevice((), "", device, (cdi.names.device_id(uid, device, share_id),), share_id)
