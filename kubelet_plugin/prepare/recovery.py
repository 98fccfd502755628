"""What a new plugin process finds: claims half prepared or half unprepared, files half written, lost records.

It looks at the node, not only at the journal, and leaves alone what another plugin process is working on (it holds that
claim's lock). Nothing here stops the plugin: what cannot be put right now is logged and tried again by the next prepare
or unprepare of that claim. A GPU whose lock somebody else holds is waited for only so long, since an old plugin that
hangs must not keep its successor from starting; such claims are named, for another try.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from dra_driver.cdi.store import CdiStore
from dra_driver.errors import DriverError
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, HeldDevice, StepRecord
from kubelet_plugin.claims.lock_names import claim_lock
from kubelet_plugin.claims.model import ClaimRef, PreparedDevice
from kubelet_plugin.prepare.apply import Applier
from kubelet_plugin.prepare.cdi_file import CDI_FILE
from kubelet_plugin.prepare.checkpoint import Checkpoint
from kubelet_plugin.prepare.kinds import Kinds
from kubelet_plugin.prepare.locks import LockBusy, NamedLocks

logger = logging.getLogger(__name__)

_SHARE_ID_LENGTH = 36  # a UUID
# What is undone in any case, and as what it is told.
_UNDONE = {ClaimState.PREPARE_STARTED: "rolled_back", ClaimState.UNPREPARE_STARTED: "unprepared"}


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was put right, as claim UIDs."""

    rolled_back: tuple[str, ...] = ()  # begun prepares undone; the kubelet asks for them again
    unprepared: tuple[str, ...] = ()  # begun unprepares finished
    restored: tuple[str, ...] = ()  # prepared claims whose steps were done again where needed
    outlived: tuple[str, ...] = ()  # claims prepared in an earlier boot, undone and forgotten
    postponed: tuple[str, ...] = ()  # claims whose GPU somebody else was working on all the time
    failed: tuple[str, ...] = ()  # claims that cannot be put right yet, as the log says


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
        restore: Callable[[ClaimEntry], None],
    ) -> None:
        self._checkpoint = checkpoint
        self._cdi = cdi
        self._applier = applier
        self._locks = locks
        self._kinds = kinds
        self._boot_id = boot_id
        self._restore = restore

    def run(self, lock_seconds: float = math.inf) -> Recovered:
        """Everything, waiting for GPUs for ``lock_seconds`` in all.

        Raises ``StateError`` only when the checkpoint or the CDI folder cannot be read or written at all.
        """
        claims = self.claims(self._checkpoint.entries(), lock_seconds)
        self._remove_temporaries()
        return claims

    def claims(self, uids: Iterable[str], lock_seconds: float = math.inf) -> Recovered:
        """Only the claims ``uids``."""
        until = time.monotonic() + lock_seconds
        done: dict[str, list[str]] = {}
        for uid in uids:
            with self._locks.try_hold(claim_lock(uid)) as ours:
                entry = self._checkpoint.entries().get(uid) if ours else None
                what = self._put_right(entry, until) if entry else None
                if what:
                    done.setdefault(what, []).append(uid)
        return Recovered(**{what: tuple(found) for what, found in done.items()})

    def _put_right(self, entry: ClaimEntry, until: float) -> str | None:
        """The field of :class:`Recovered` that tells what was done; None for nothing. Its claim's lock is held."""
        undone = _UNDONE.get(entry.state)
        if undone is None and entry.boot_id != self._boot_id:
            # Its containers are gone and device numbers may have changed. The kubelet has prepared again what it still
            # wants; of a claim that it forgot, or unprepared just before a power cut, we never hear.
            undone = "outlived"
        if undone is None and entry.state is not ClaimState.COMPLETED:
            return None
        try:
            with self._locks.hold(self._kinds.locks_of_entry(entry), until=until):
                if undone is None:
                    self._restore(entry)
                    return "restored"
                self._applier.undo(entry, lambda _step: None)
                self._checkpoint.update(remove=[entry.ref.uid])
        except LockBusy as error:
            logger.warning("claim %s was left %s and has to wait: %s", entry.ref, entry.state, error)
            return "postponed"
        except DriverError as error:
            logger.warning("claim %s was left %s and cannot be put right yet: %s", entry.ref, entry.state, error)
            return "failed"
        logger.info("claim %s was left %s; undone", entry.ref, entry.state)
        return undone

    def _remove_temporaries(self) -> None:
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
    device, share_id = name, None
    if kinds.of(name) is None:
        device, share_id = name[: -_SHARE_ID_LENGTH - 1], name[-_SHARE_ID_LENGTH:]
    return PreparedDevice((), "", device, (cdi.names.device_id(uid, device, share_id),), share_id)
