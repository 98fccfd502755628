"""Sets the limits of shares on cgroups, clears them, and looks whether they are still there.

The record is on disk before a limit is set and goes after it was cleared, so whatever a killed plugin leaves is found.
Several shares may be in one container: what a cgroup may have of a GPU is the sum of its shares. Locks hold between
threads and plugins: a share's while its record changes, then a GPU's while limits of it do, one GPU at a time.

What is done to one cgroup on one GPU is in ``applied``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from dra_driver.errors import DriverError, StateError
from dra_driver.hardware.cgroups import inode
from dra_driver.hardware.nvml.memory_limits import MemoryLimits
from kubelet_plugin.memory_fence.applied import Applied, Node
from kubelet_plugin.memory_fence.container import Container, ContainerGone, Place, find
from kubelet_plugin.memory_fence.records import Fenced, Record, Records
from kubelet_plugin.memory_fence.share import ShareLimit, ShareName

logger = logging.getLogger(__name__)


class Fences(Protocol):
    """What the kind that asks for fences knows. Called from threads of this room: it must not wait for a claim."""

    def limits_of(self, claim_uid: str, share_key: str) -> Sequence[ShareLimit] | None:
        """What each container with the share may have; None: no such share is prepared here (any more)."""
        ...


class Locks(Protocol):
    """``kubelet_plugin.prepare.locks.NamedLocks`` on a file of its own."""

    def hold(self, names: Iterable[str], *, until: float = math.inf) -> AbstractContextManager[None]:
        """LockBusy, a StateError, when one is not free at ``until`` (of ``time.monotonic``)."""
        ...


class NotPrepared(StateError):
    """A container comes with a share that is not prepared here."""

    reason = "ShareNotPrepared"


@dataclass(frozen=True, slots=True)
class LostFence:
    """A container that may have more, or less, of a GPU than its shares say. ``found`` None: NVML knows of no limit."""

    share: ShareName
    cgroup: Path
    gpu_uuid: str
    soft: int
    hard: int
    found: MemoryLimits | None


class Keeper:
    """Thread-safe. ``folder`` is made by :meth:`start`. Methods raise DriverError or OSError."""

    def __init__(self, folder: Path, node: Node, fences: Fences, locks: Locks) -> None:
        self._folder = folder
        self._node = node
        self._fences = fences
        self._locks = locks
        self._records = Records(folder)
        self._applied = Applied(node, self._records)

    def start(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def fence(self, share: ShareName, container: Container, *, until: float = math.inf) -> None:
        """Set the limits of ``share`` on the container's cgroup, and read them back.

        Raises NotPrepared, ContainerGone, LockBusy at ``until``, HardwareError; then the container must not run.
        """
        with self._locks.hold([_lock(share)], until=until):
            limits = self._fences.limits_of(share.claim_uid, share.key)
            if not limits:
                raise NotPrepared(
                    f"{share} is not prepared on this node, so its container cannot be limited",
                    hint="the kubelet prepares the claim again when the pod is started anew",
                )
            place = find(container, self._node.hierarchy, self._node.proc)
            wanted = _wanted(place, limits)
            record = self._settled_if_possible(share, until).with_(*wanted)
            self._records.put(record)
            try:
                for each in wanted:
                    with self._locks.hold([_gpu_lock(each.gpu_uuid)], until=until):
                        self._applied.apply(each)
                if find(container, self._node.hierarchy, self._node.proc) != place:
                    raise ContainerGone(f"container {container.id} has ended while it was limited")
            except (DriverError, OSError):
                self._take_back(record, wanted, until)
                raise

    def clear(self, claim_uid: str, share_key: str, *, until: float = math.inf) -> None:
        """No cgroup has a limit of this share any more, and nothing is reserved for it. May be repeated."""
        share = ShareName.of(claim_uid, share_key)
        with self._locks.hold([_lock(share)], until=until):
            self._clear(share, until)

    def reconcile(self, *, until: float = math.inf) -> tuple[str, ...]:
        """Clear what ended containers and shares that are no longer prepared have left; what fails, in words.

        For the start, and for now and then: a container that is started anew leaves what was reserved for its cgroup.
        """
        failed: list[str] = []
        half_written = self._records.half_written()
        shares = [*(record.share for record in self._records.all()), *(share for share, _ in half_written)]
        for share in dict.fromkeys(shares):
            try:
                with self._locks.hold([_lock(share)], until=until):
                    for path in (path for other, path in half_written if other == share):
                        path.unlink(missing_ok=True)
                    if self._fences.limits_of(share.claim_uid, share.key) is None:
                        self._clear(share, until)
                    else:
                        self._settled(self._record_of(share), until)
            except (DriverError, OSError) as error:
                failed.append(f"memory limits of {share} are not cleared: {error}")
        return tuple(failed)

    def check(self, *, until: float = math.inf) -> tuple[LostFence, ...]:
        """Read the limits of all containers again; those that are not what they should be.

        A share that is being changed at the time, or a GPU that does not answer, is passed over.
        """
        return tuple(each for record in tuple(self._records.all()) for each in self._lost(record.share, until))

    # -- one share, with its lock held -------------------------------------------------------------------------------

    def _record_of(self, share: ShareName) -> Record:
        """What is remembered of it in this boot."""
        boot_id = self._node.boot_id()
        record = self._records.read(share)
        if record is None or record.boot_id != boot_id:
            return Record(share, boot_id)  # a reboot has ended all cgroups, and so all limits
        return record

    def _clear(self, share: ShareName, until: float) -> None:
        record = self._record_of(share)
        self._records.put(self._without(record, record.fenced, until))

    def _settled(self, record: Record, until: float) -> Record:
        """Without the cgroups that are gone, and what is still reserved for them."""
        return self._without(record, [each for each in record.fenced if inode(each.cgroup) != each.inode], until)

    def _settled_if_possible(self, share: ShareName, until: float) -> Record:
        """What ended containers have left is no reason to let none begin."""
        try:
            return self._settled(self._record_of(share), until)
        except (DriverError, OSError) as error:
            logger.warning("what ended containers of %s have left is cleared later: %s", share, error)
            return self._record_of(share)

    def _without(self, record: Record, ending: Iterable[Fenced], until: float) -> Record:
        """With the limits of ``ending`` taken away. Each is tried; then the first error is raised."""
        errors: list[DriverError | OSError] = []
        for each in ending:
            try:
                with self._locks.hold([_gpu_lock(each.gpu_uuid)], until=until):
                    self._applied.end(each)
                    record = record.without(each)
                    self._records.put(record)
            except (DriverError, OSError) as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return record

    def _take_back(self, record: Record, wanted: Iterable[Fenced], until: float) -> None:
        """The container will not run; what cannot be taken back now stays in the record."""
        try:
            self._without(record, wanted, until)
        except (DriverError, OSError) as error:
            logger.warning("limits that %s was refused with are cleared later: %s", record.share, error)

    def _lost(self, share: ShareName, until: float) -> list[LostFence]:
        lost: list[LostFence] = []
        try:
            with self._locks.hold([_lock(share)], until=until):
                for each in self._record_of(share).fenced:
                    if inode(each.cgroup) != each.inode:
                        continue
                    with self._locks.hold([_gpu_lock(each.gpu_uuid)], until=until):
                        soft, hard = self._applied.wanted(each)
                        found = self._node.limits.get(each.gpu_uuid, each.cgroup)
                    is_right = found is not None and (found.soft, found.hard) == (soft, hard)
                    if not is_right and inode(each.cgroup) == each.inode:  # it has not ended meanwhile
                        lost.append(LostFence(share, each.cgroup, each.gpu_uuid, soft, hard, found))
        except DriverError as error:
            logger.info("memory limits of %s are not looked at: %s", share, error)
        return lost


def _wanted(place: Place, limits: Iterable[ShareLimit]) -> list[Fenced]:
    """One for each GPU, however often it is named."""
    by_gpu: dict[str, Fenced] = {}
    for each in limits:
        known = by_gpu.get(each.gpu_uuid, Fenced(place.cgroup, place.inode, each.gpu_uuid, 0, 0))
        by_gpu[each.gpu_uuid] = replace(known, soft=known.soft + each.soft, hard=known.hard + each.hard)
    return list(by_gpu.values())


def _lock(share: ShareName) -> str:
    return f"share-{share.claim_uid}-{share.key}"


def _gpu_lock(uuid: str) -> str:
    return f"gpu-{uuid}"
