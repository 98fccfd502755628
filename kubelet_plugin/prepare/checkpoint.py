"""The checkpoint: which claims are prepared here, durable before anything is acknowledged.

Responsible for reading and writing the file safely: whole-file replacement with fsync, changes of several threads in
one write, two plugin processes on one file (each change re-reads it under a lock when another process has written it).
A file that is damaged, missing or of a newer version never stops the plugin: what verifies is kept, the rest is set
aside beside it, and claims that have a CDI file but no record any more are recorded as such, so that their devices stay
theirs until the kubelet unprepares them (also the way from NVIDIA's driver, which names its CDI files alike).

The end of a claim is marked beside the file (``marks``): when undoing its steps begins, and when it is over. The next
write leaves it out. A power cut may take the marks, and ends the boot that all of it is about.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from dra_driver.errors import StateError
from dra_driver.files import Durability, target_of_temporary, write_atomically
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState
from kubelet_plugin.prepare.checkpoint_format import EncodedClaim, Reading, decode_file, encode_claim, encode_file
from kubelet_plugin.prepare.locks import NamedLocks
from kubelet_plugin.prepare.marks import Marks

logger = logging.getLogger(__name__)

# Below the driver's folder and not in it: NVIDIA's driver keeps a checkpoint.json of another form there.
STATE_FOLDER = "gpu-dra"
LOCK_NAME = "checkpoint"
FILE_NAME = "checkpoint.json"
ENDING, ENDED = "ending", "ended"  # folders of marks
_MOST_ENDED = 64  # then they are left out of the file without waiting for a claim to be written
_LOCK_SECONDS = 10.0

_Identity = tuple[int, int, int, int] | None  # device, inode, time of change, size; None: no file


class DamageKind(StrEnum):
    CORRUPT = "corrupt"  # a checksum does not match, or the file is cut short
    NEWER = "newer"  # written by a later version of this driver
    MISSING = "missing"  # no file, but CDI files of claims


@dataclass(frozen=True, slots=True)
class CheckpointDamage:
    """What happened to the checkpoint; for an Event and a metric."""

    kind: DamageKind
    path: Path
    set_aside: Path | None  # a copy of the file as it was found
    problems: tuple[str, ...]
    kept: int  # claims that go on as they were
    record_lost: tuple[str, ...]  # UIDs known only from their CDI files now

    def __str__(self) -> str:
        parts = [f"checkpoint {self.path} is {self.kind}: {'; '.join(self.problems)}"]
        if self.set_aside:
            parts.append(f"it was set aside as {self.set_aside.name}")
        if self.record_lost:
            parts.append(f"{len(self.record_lost)} claims are known only from their CDI files")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    identity: _Identity
    entries: Mapping[str, ClaimEntry]
    claims: Mapping[str, EncodedClaim]


@dataclass(frozen=True, slots=True)
class _Marked:
    """Claims of which more is known than the file says."""

    ending: frozenset[str]
    ended: frozenset[str]

    def on(self, entries: Mapping[str, ClaimEntry]) -> Mapping[str, ClaimEntry]:
        """What the file says, with that."""
        if not (self.ending or self.ended):
            return entries
        return {uid: self._as_marked(entry) for uid, entry in entries.items() if uid not in self.ended}

    def _as_marked(self, entry: ClaimEntry) -> ClaimEntry:
        return replace(entry, state=ClaimState.UNPREPARE_STARTED) if entry.ref.uid in self.ending else entry


@dataclass(slots=True)
class _Change:
    put: Sequence[ClaimEntry]
    remove: Collection[str]
    durability: Durability
    done: bool = False
    error: StateError | None = field(default=None)


class Checkpoint:
    """The file ``checkpoint.json`` in ``folder``. Thread-safe, and safe beside another process's.

    ``unrecorded`` makes entries for claims that have a CDI file but are not among the UIDs it is given.
    ``on_damage`` is called after the file was repaired, with no lock of this object held by the caller's thread but the
    checkpoint's own; it must not come back here.
    """

    def __init__(
        self,
        folder: Path,
        boot_id: str,
        locks: NamedLocks,
        unrecorded: Callable[[Collection[str]], Sequence[ClaimEntry]],
        on_damage: Callable[[CheckpointDamage], None],
        *,
        lock_seconds: float = _LOCK_SECONDS,
    ) -> None:
        """``lock_seconds``: how long another process that writes is waited for."""
        self.path = folder / FILE_NAME
        self._ending, self._ended = Marks(folder / ENDING), Marks(folder / ENDED)
        self._boot_id = boot_id
        self._lock_seconds = lock_seconds
        self._locks = locks
        self._unrecorded = unrecorded
        self._on_damage = on_damage
        self._guard = threading.Lock()  # of _snapshot and _waiting
        self._writing = threading.Lock()  # held by the one thread that writes for all
        self._snapshot: _Snapshot | None = None
        self._waiting: list[_Change] = []

    def entries(self) -> Mapping[str, ClaimEntry]:
        """All claims by UID, as they are now. Raises :class:`StateError`."""
        marked = self._marked()
        snapshot = self._current()
        if snapshot is None:
            with self._writing, self._lock():
                snapshot = self._current() or self._repair()
        return marked.on(snapshot.entries)

    def look(self) -> Mapping[str, ClaimEntry]:
        """As :meth:`entries`, but the file is left as it is: before the plugin has taken over, no file is no damage."""
        marked = self._marked()
        snapshot = self._current()
        if snapshot is not None:
            return marked.on(snapshot.entries)
        data = self._read()
        known = {} if data is None else decode_file(data).entries
        return marked.on({**{entry.ref.uid: entry for entry in self._unrecorded(tuple(known))}, **known})

    def announce(self, entries: Iterable[ClaimEntry]) -> None:
        """Record what is about to be done, so that even a power cut cannot take it. Raises as :meth:`update`."""
        self._change(_Change(tuple(entries), frozenset(), Durability.LASTING))

    def update(self, *, put: Iterable[ClaimEntry] = (), remove: Iterable[str] = ()) -> None:
        """Record and forget claims, after what was done. Raises :class:`StateError`, then nothing has changed.

        No crash of a process loses it. A power cut may bring the record before it back: of a boot that is over, so the
        next start forgets it (``recovery``), and the kubelet has prepared again what it still wants.
        """
        self._change(_Change(tuple(put), frozenset(remove), Durability.WHOLE))

    def ends(self, uid: str) -> None:
        """Record that undoing what was done for a claim begins. Raises :class:`StateError`."""
        with self._telling_of_marks():
            self._ending.set(uid)

    def forget(self, uid: str) -> None:
        """Record that all of a claim is undone. Raises :class:`StateError`.

        As :meth:`update`, but for less: if a power cut brings the record back, it is one of a boot that is over.
        """
        with self._telling_of_marks():
            self._ended.set(uid)
            self._ending.clear([uid])
            many = len(self._ended.uids()) > _MOST_ENDED
        if many:
            self.update(remove=[uid])

    def _marked(self) -> _Marked:
        """To be asked for before the file: a mark goes once the file says the same."""
        with self._telling_of_marks():
            return _Marked(self._ending.uids(), self._ended.uids())

    @contextmanager
    def _telling_of_marks(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _cannot_write(Path(error.filename or self.path.parent), error) from error

    def _change(self, change: _Change) -> None:
        """Threads that come while another one writes wait for it, and the first of them writes for all."""
        if not change.put and not change.remove:
            return
        with self._guard:
            self._waiting.append(change)
        with self._writing:
            if not change.done:
                with self._guard:
                    changes, self._waiting = self._waiting, []
                self._write_for(changes)
        if change.error:
            raise change.error

    def _lock(self) -> AbstractContextManager[None]:
        """Writing takes milliseconds, so whoever has it for longer hangs or was stopped. Raises ``LockBusy`` then."""
        return self._locks.hold([LOCK_NAME], until=time.monotonic() + self._lock_seconds)

    def tidy(self) -> None:
        """Remove what writers that were killed have left, and write down what is only marked. Raises StateError."""
        with self._writing, self._lock():
            for path in self.path.parent.iterdir():
                if (target_of_temporary(path.name) or "").startswith(FILE_NAME):
                    path.unlink(missing_ok=True)
            marked = self._marked()
            known = (self._current() or self._repair()).entries
            if any(uid in known for uid in marked.ended):
                self._write(())
            with self._telling_of_marks():
                self._ending.clear(marked.ending - known.keys())
                self._ended.clear(marked.ended - known.keys())

    def _write_for(self, changes: Sequence[_Change]) -> None:
        error: StateError | None = StateError("the write of the checkpoint was interrupted")
        try:
            with self._lock():
                self._write(changes)
            error = None
        except StateError as failure:
            error = failure
        finally:
            for change in changes:
                change.error = error
                change.done = True

    def _write(self, changes: Sequence[_Change]) -> None:
        marked = self._marked()
        before = self._current() or self._repair()
        entries, claims = dict(before.entries), dict(before.claims)
        removed = {*marked.ended, *(uid for change in changes for uid in change.remove)}
        for uid in removed:
            entries.pop(uid, None)
            claims.pop(uid, None)
        put = {entry.ref.uid: entry for change in changes for entry in change.put}
        for uid, entry in put.items():
            entries[uid] = entry
            claims[uid] = encode_claim(entry)
        durability = max((change.durability for change in changes), default=Durability.WHOLE)
        self._store(entries, claims, durability)
        # After it: until its marks are gone a claim that was put has ended, and nothing was done for it yet.
        with self._telling_of_marks():
            over = removed | put.keys()
            self._ending.clear(marked.ending & over)
            self._ended.clear(marked.ended & over, durability)

    def _store(
        self, entries: Mapping[str, ClaimEntry], claims: Mapping[str, EncodedClaim], durability: Durability
    ) -> _Snapshot:
        """Replace the file. Called with the checkpoint's lock held."""
        try:
            write_atomically(self.path, encode_file(self._boot_id, claims), mode=0o600, durability=durability)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        snapshot = _Snapshot(_identity(self.path), MappingProxyType(dict(entries)), MappingProxyType(dict(claims)))
        with self._guard:
            self._snapshot = snapshot
        return snapshot

    def _current(self) -> _Snapshot | None:
        """What the file says; None when it has to be repaired first."""
        with self._guard:
            snapshot = self._snapshot
        identity = _identity(self.path)
        if snapshot is not None and snapshot.identity == identity:
            return snapshot
        data = self._read()
        if data is None:
            if self._unrecorded(()):
                return None
            reading = Reading({})
        else:
            reading = decode_file(data)
        if reading.problems:
            return None
        claims = {uid: encode_claim(entry) for uid, entry in reading.entries.items()}
        snapshot = _Snapshot(identity, MappingProxyType(dict(reading.entries)), MappingProxyType(claims))
        with self._guard:
            self._snapshot = snapshot
        return snapshot

    def _read(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot read checkpoint {self.path}: {error.strerror or error}") from error

    def _repair(self) -> _Snapshot:
        """Set the file aside and write what can be kept. Called with the checkpoint's lock held."""
        data = self._read()
        if data is None:
            kind, reading, set_aside = DamageKind.MISSING, Reading({}, ("no file, but claims have CDI files",)), None
        else:
            reading = decode_file(data)
            kind = DamageKind.CORRUPT if reading.newer is None else DamageKind.NEWER
            set_aside = self._set_aside(data, kind)
        lost = {entry.ref.uid: entry for entry in self._unrecorded(tuple(reading.entries))}
        entries = {**lost, **reading.entries}
        claims = {uid: encode_claim(entry) for uid, entry in entries.items()}
        snapshot = self._store(entries, claims, Durability.LASTING)
        damage = CheckpointDamage(kind, self.path, set_aside, reading.problems, len(reading.entries), tuple(lost))
        logger.error("%s", damage)
        self._on_damage(damage)
        return snapshot

    def _set_aside(self, data: bytes, kind: DamageKind) -> Path:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        number = 1
        while (path := self.path.with_name(f"{FILE_NAME}.{kind}-{stamp}-{number}")).exists():
            number += 1
        try:
            write_atomically(path, data, mode=0o600)
        except OSError as error:
            raise StateError(f"cannot set the damaged checkpoint aside as {path}: {error.strerror or error}") from error
        return path


def read_folder(folder: Path) -> Reading:
    """The claims that a plugin's state folder has, for who only looks on: nothing is repaired. Raises OSError."""
    ended = Marks(folder / ENDED).uids()
    try:
        reading = decode_file((folder / FILE_NAME).read_bytes())
    except FileNotFoundError:
        return Reading({})
    return replace(reading, entries={uid: entry for uid, entry in reading.entries.items() if uid not in ended})


def _cannot_write(path: Path, error: OSError) -> StateError:
    return StateError(
        f"cannot write checkpoint {path}: {error.strerror or error}",
        hint="check the disk and the permissions of the plugin's folder on the node",
    )


def _identity(path: Path) -> _Identity:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size
