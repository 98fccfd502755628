"""Takes the node's claims over from NVIDIA's driver when the plugin starts, and hands them over when it ends for good.

A node's claims are written down in one place: in NVIDIA's ``checkpoint.json`` in the drivers' folder, or in ours. So a
start that finds NVIDIA's puts its claims into our checkpoint and then moves the file into our folder: left there, a
later start would take over claims that have been unprepared since. A file that cannot be relied on stays where it is;
its claims are known from their CDI files. The way back is the same: with ``handOver`` on, the end of the plugin writes
NVIDIA's file and then empties ours. A crash between the two leaves the claims in both, which loses none.

A second plugin on the node, as there is during an update, goes on with our checkpoint; then nothing is handed over.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from dra_driver.cdi.store import CdiStore
from dra_driver.errors import DriverError, HardwareError, StateError
from dra_driver.files import Durability, write_atomically
from dra_driver.hardware.model import GpuInstance, Machine
from kubelet_plugin.claims.entry import ClaimEntry, ClaimState
from kubelet_plugin.claims.lock_names import claim_lock
from kubelet_plugin.node.socket_file import Listener, probe
from kubelet_plugin.prepare.checkpoint import STATE_FOLDER, Checkpoint, CheckpointDamage
from kubelet_plugin.prepare.kinds import Kinds
from kubelet_plugin.prepare.locks import LockBusy, NamedLocks
from kubelet_plugin.prepare.recovery import lost_records
from kubelet_plugin.takeover.adopt import Here, adopt, adopt_files, give_up
from kubelet_plugin.takeover.hand_over import to_nvidia
from kubelet_plugin.takeover.kubelet_claims import NO_WORD, KubeletClaims
from kubelet_plugin.takeover.kubelet_claims import decode as decode_kubelet
from kubelet_plugin.takeover.nvidia_checkpoint import NvidiaCheckpoint, UnknownCheckpoint, decode
from kubelet_plugin.takeover.nvidia_writing import encode

logger = logging.getLogger(__name__)

NVIDIA_FILE, NVIDIA_SOCKET = "checkpoint.json", "dra.sock"
TAKEN_FILE = "nvidia-checkpoint.json"  # NVIDIA's file in our folder, as it was taken over last
_PLUGINS = "plugins"  # every running plugin holds a shared lock on it

_CLAIMS_NAMED = 6
_PRESENCE_SECONDS, _ASK_AGAIN_SECONDS = 20.0, 0.05


class TakeOverListener(Protocol):
    """Who is told. Must not raise."""

    def taken_over(self, message: str) -> None: ...

    def take_over_incomplete(self, message: str) -> None:
        """Something needs a person, or NVIDIA's file could not be used."""
        ...

    def checkpoint_damaged(self, damage: CheckpointDamage) -> None:
        """Our own checkpoint was found damaged and has been repaired."""
        ...


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """What of the node is asked. ``machine`` and ``instances`` raise ``HardwareError``."""

    machine: Callable[[], Machine]
    instances: Callable[[str], tuple[GpuInstance, ...]]  # MIG instances of a GPU, by its UUID, as they are now
    kubelet_state: Path  # the kubelet's checkpoint, where it can be seen


@dataclass(frozen=True, slots=True)
class TakenOver:
    """UIDs of claims that have a record of ours since this start."""

    from_nvidia: tuple[str, ...] = ()
    from_files: tuple[str, ...] = ()  # known from their CDI files only
    given_up: tuple[str, ...] = ()  # over, though nobody has unprepared them


class TakeOver:
    """Between :meth:`start`, which comes before the prepare engine's, and :meth:`stop`, which comes after its end."""

    def __init__(
        self,
        folder: Path,
        driver_name: str,
        boot_id: str,
        cdi: CdiStore,
        kinds: Kinds,
        neighbourhood: Neighbourhood,
        listener: TakeOverListener,
        *,
        is_time_sliced: Callable[[ClaimEntry], bool],
        hand_over: bool = False,
        seconds: float = _PRESENCE_SECONDS,
    ) -> None:
        """``folder``: the drivers', ``/var/lib/kubelet/plugins/gpu.nvidia.com``. ``is_time_sliced``: whether a claim's
        steps have set time slices, of which NVIDIA's driver must know.
        """
        self._nvidia_file = folder / NVIDIA_FILE
        self._state = folder / STATE_FOLDER
        self._driver_name = driver_name
        self._boot_id = boot_id
        self._cdi = cdi
        self._kinds = kinds
        self._neighbourhood = neighbourhood
        self._listener = listener
        self._is_time_sliced = is_time_sliced
        self._hand_over = hand_over
        self._seconds = seconds
        self._locks = NamedLocks(self._state / "locks")
        self._checkpoint = Checkpoint(
            self._state, boot_id, self._locks, self._of_damaged_checkpoint, listener.checkpoint_damaged
        )
        self._presence: int | None = None

    def start(self) -> TakenOver:
        """Raises ``StateError`` while NVIDIA's plugin runs, and when our folder cannot be written."""
        self._refuse_while_nvidia_runs()
        try:
            self._state.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._presence = os.open(self._state / _PLUGINS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._wait_for_presence(self._presence)
        except OSError as error:
            raise StateError(
                f"cannot use state folder {self._state}: {error.strerror or error}",
                hint="check that the plugin's data folder is mounted from the host and writable",
            ) from error
        try:
            return self._take()
        except BaseException:
            self._leave()
            raise

    def _wait_for_presence(self, descriptor: int) -> None:
        """Waits only while another plugin is handing over, and not for one that hangs at it."""
        until = time.monotonic() + self._seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise LockBusy(
                        f"another plugin on this node has been handing its claims over for {self._seconds:.0f} s",
                        hint="end its process if it hangs; the claims stay where they are",
                    ) from None
                time.sleep(_ASK_AGAIN_SECONDS)
            else:
                return

    def _take(self) -> TakenOver:
        found = self._read_nvidia()
        from_nvidia = () if found is None else self._from_nvidia(found)
        from_files = self._put(self._from_files(), lambda known, entry: entry.ref.uid not in known)
        given_up = self._give_up(changed=found is not None)
        taken = TakenOver(from_nvidia, from_files, given_up)
        if taken != TakenOver():
            self._listener.taken_over(_told(taken, self._checkpoint.entries()))
        return taken

    def stop(self) -> None:
        """Hand over, if that is asked for. What goes wrong is told: then our checkpoint has the claims as before."""
        if self._presence is None:
            return
        try:
            if self._hand_over:
                self._hand_claims_over()
        except (DriverError, OSError) as error:
            self._listener.take_over_incomplete(f"claims are not handed over to NVIDIA's driver: {error}")
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._presence is not None:
            os.close(self._presence)
            self._presence = None

    def _refuse_while_nvidia_runs(self) -> None:
        """Taking its file away would not end it: it would write the next one, without the claims that are ours then."""
        socket = self._nvidia_file.with_name(NVIDIA_SOCKET)
        if self._nvidia_file.exists() and probe(socket) is Listener.ALIVE:
            raise StateError(
                f"NVIDIA's driver is running on this node: it has {self._nvidia_file} and serves {socket}",
                hint="a node has one driver of this name; uninstall NVIDIA's chart, or set its resources.gpus.enabled "
                "to false",
            )

    # -- from NVIDIA's driver ------------------------------------------------------------------------------------------

    def _from_nvidia(self, found: NvidiaCheckpoint) -> tuple[str, ...]:
        if found.problems:
            self._listener.take_over_incomplete(f"of {self._nvidia_file}: {'; '.join(found.problems)}")
        adopted = adopt(found, self._here())
        known = self._checkpoint.entries()
        new = tuple(entry for entry in adopted.entries if known.get(entry.ref.uid) != entry)
        self._checkpoint.announce(new)
        try:
            os.replace(self._nvidia_file, self._state / TAKEN_FILE)
        except OSError as error:
            raise StateError(
                f"cannot move {self._nvidia_file} to {self._state / TAKEN_FILE}: {error.strerror or error}",
                hint="its claims would be taken over again after they have ended; move it by hand, or check the folder",
            ) from error
        for sentence in adopted.left_undone:
            self._listener.take_over_incomplete(f"not undone here: {sentence}")
        return tuple(entry.ref.uid for entry in new)

    def _read_nvidia(self) -> NvidiaCheckpoint | None:
        try:
            return decode(self._nvidia_file.read_bytes(), self._driver_name)
        except FileNotFoundError:
            return None
        except UnknownCheckpoint as error:
            why = str(error)
        except OSError as error:
            why = error.strerror or str(error)
        self._listener.take_over_incomplete(
            f"checkpoint {self._nvidia_file} of NVIDIA's driver cannot be used: {why}. It stays where it is, and its "
            "claims are known from their CDI files only; remove it when the pods with those claims have ended"
        )
        return None

    def _here(self) -> Here:
        entries = self._checkpoint.entries()
        kubelet = self._kubelet()
        try:
            machine: Machine | None = self._neighbourhood.machine()
        except HardwareError as error:
            logger.warning("taking claims over without knowing the hardware: %s", error)
            machine = None

        def mend(entry: ClaimEntry) -> ClaimEntry:
            return entry if machine is None else self._kinds.mended(entry, lambda: machine)

        return Here(self._cdi.names.device_id, self._boot_id, entries, kubelet, machine, mend)

    def _kubelet(self) -> KubeletClaims:
        try:
            return decode_kubelet(self._neighbourhood.kubelet_state.read_bytes())
        except OSError:
            return NO_WORD  # not mounted, or no claim has ever been on this node

    # -- from CDI files ------------------------------------------------------------------------------------------------

    def _of_damaged_checkpoint(self, known: Iterable[str]) -> tuple[ClaimEntry, ...]:
        """For our checkpoint's repair. Where there is none, nothing is damaged: files without records come later."""
        if not self._checkpoint.path.exists():
            return ()
        return tuple(lost_records(self._cdi, self._kinds, self._boot_id, tuple(known)))

    def _from_files(self) -> tuple[ClaimEntry, ...]:
        known = self._checkpoint.entries().keys()
        return adopt_files(lost_records(self._cdi, self._kinds, self._boot_id, known), self._kubelet())

    def _give_up(self, *, changed: bool) -> tuple[str, ...]:
        lost = any(entry.state is ClaimState.RECORD_LOST for entry in self._checkpoint.entries().values())
        if not (lost or changed):
            return ()
        over = give_up(self._here(), self._cdi.claim_uids(), changed=changed)
        return self._put(over, lambda known, entry: entry.ref.uid in known)

    def _put(
        self, entries: Iterable[ClaimEntry], still: Callable[[Mapping[str, ClaimEntry], ClaimEntry], bool]
    ) -> tuple[str, ...]:
        """Record ``entries``, but not those that another plugin is working on or, since we looked, has recorded."""
        done = []
        for entry in entries:
            with self._locks.try_hold(claim_lock(entry.ref.uid)) as ours:
                if ours and still(self._checkpoint.entries(), entry):
                    self._checkpoint.announce([entry])
                    done.append(entry.ref.uid)
        return tuple(done)

    # -- to NVIDIA's driver --------------------------------------------------------------------------------------------

    def _hand_claims_over(self) -> None:
        if self._presence is None:
            return
        try:
            fcntl.flock(self._presence, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another plugin serves this node, so no claim is handed over")
            return
        entries = self._checkpoint.entries()
        claims = to_nvidia(entries.values(), self._machine_now(), self._boot_id, self._is_time_sliced)
        write_atomically(
            self._nvidia_file,
            encode(claims, self._driver_name, self._boot_id),
            mode=0o600,
            durability=Durability.LASTING,
        )
        self._checkpoint.update(remove=entries.keys())
        logger.info("handed %d claims over to NVIDIA's driver in %s", len(claims), self._nvidia_file)

    def _machine_now(self) -> Machine:
        """With the MIG instances of this moment: a snapshot may be older than the last prepare."""
        machine = self._neighbourhood.machine()
        gpus = tuple(
            replace(gpu, mig=replace(gpu.mig, instances=self._neighbourhood.instances(gpu.uuid))) if gpu.mig else gpu
            for gpu in machine.gpus
        )
        return replace(machine, gpus=gpus)


def _told(taken: TakenOver, entries: Mapping[str, ClaimEntry]) -> str:
    parts = (
        ("taken over from NVIDIA's driver", taken.from_nvidia),
        ("known only from their CDI files, and held until they are unprepared", taken.from_files),
        ("given up, since the kubelet does not have them or their CDI file is gone", taken.given_up),
    )
    return "; ".join(f"claims {what}: {_named(uids, entries)}" for what, uids in parts if uids)


def _named(uids: tuple[str, ...], entries: Mapping[str, ClaimEntry]) -> str:
    names = [str(entries[uid].ref) if uid in entries else uid for uid in uids[:_CLAIMS_NAMED]]
    more = f" and {len(uids) - len(names)} more" if len(uids) > len(names) else ""
    return ", ".join(names) + more
