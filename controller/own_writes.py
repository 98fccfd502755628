"""What this controller wrote to one pool and its watch has not shown yet, laid over the watched slices.

Without it, a slice just created would look missing until the watch brings it, and be created twice. It also tells our
own deletions from those of others: a deletion that is not ours is the kubelet's wipe (or an admin's hand).

Written by the worker that reconciles the pool, read and corrected by the reflector's thread; thread-safe.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dra_driver.kube.interface import Obj

# As long as the mutation cache of k8s.io/dynamic-resource-allocation/resourceslice: a write that the watch has not
# shown by then was undone while the watch was broken.
REMEMBER_SECONDS = 60.0
_GONE_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class _Write:
    """``object`` is None for a deletion."""

    uid: str
    object: Obj | None
    at: float


class OwnWrites:
    """The writes of one pool."""

    def __init__(
        self, *, remember_seconds: float = REMEMBER_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._remember_seconds = remember_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._writes: dict[str, _Write] = {}
        self._our_deletions: set[str] = set()
        # UIDs of objects whose end was seen; a late answer to our own write must not bring one back.
        self._gone: deque[str] = deque(maxlen=_GONE_REMEMBERED)

    # -- told by the worker -----------------------------------------------------------------------------------------

    def wrote(self, obj: Obj) -> None:
        """``obj`` is the server's answer to our create or update."""
        metadata = obj["metadata"]
        with self._lock:
            if metadata["uid"] not in self._gone:
                self._writes[metadata["name"]] = _Write(metadata["uid"], obj, self._clock())

    def will_delete(self, uid: str) -> None:
        """Call before the request: its event may come before its answer."""
        with self._lock:
            self._our_deletions.add(uid)

    def did_not_delete(self, uid: str) -> None:
        """The request failed; a deletion seen from now on is not ours."""
        with self._lock:
            self._our_deletions.discard(uid)

    def is_gone(self, name: str, uid: str) -> None:
        """The server says that this object does not exist (any more), whatever the watch has shown."""
        with self._lock:
            self._gone.append(uid)
            self._writes[name] = _Write(uid, None, self._clock())

    # -- told by the watch ------------------------------------------------------------------------------------------

    def saw_deletion(self, obj: Obj) -> bool:
        """True when nobody here knew of it: the slice was deleted by somebody else."""
        name, uid = obj["metadata"]["name"], obj["metadata"]["uid"]
        with self._lock:
            known = uid in self._our_deletions or uid in self._gone
            self._our_deletions.discard(uid)
            self._gone.append(uid)
            write = self._writes.get(name)
            if write is not None and write.uid == uid:
                del self._writes[name]
            return not known

    # -- asked by the worker ----------------------------------------------------------------------------------------

    def overlay(self, watched: Iterable[Obj]) -> list[Obj]:
        """The slices of the pool: of each the newer of what the watch and our own writes say."""
        slices = {obj["metadata"]["name"]: obj for obj in watched}
        with self._lock:
            expired = self._clock() - self._remember_seconds
            for name, write in list(self._writes.items()):
                seen = slices.get(name)
                if write.at <= expired or (seen is not None and _supersedes(seen, write)):
                    del self._writes[name]
                elif write.object is not None:
                    slices[name] = write.object
                elif seen is not None and seen["metadata"]["uid"] == write.uid:
                    del slices[name]
        return list(slices.values())

    def unconfirmed(self) -> bool:
        """Whether the watch has yet to show some of our writes."""
        with self._lock:
            return bool(self._writes)


def _supersedes(seen: Obj, write: _Write) -> bool:
    metadata = seen["metadata"]
    if metadata["uid"] != write.uid:
        return True
    return write.object is not None and not is_older(metadata, write.object["metadata"])


def is_older(left: Obj, right: Obj) -> bool:
    """Whether metadata ``left`` is an older version than ``right``. Versions of one object are comparable numbers
    (KEP-5504); others are only equal or not, and an unequal one is taken for older."""
    ours, theirs = str(left.get("resourceVersion", "")), str(right.get("resourceVersion", ""))
    if ours.isdigit() and theirs.isdigit():
        return int(ours) < int(theirs)
    return ours != theirs
