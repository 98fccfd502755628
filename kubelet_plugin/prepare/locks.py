"""Locks that hold between threads and between processes: an old and a new plugin pod overlap during a rolling update.

A lock is a name. Between processes it is one byte of one file, at an offset that the name's hash gives, locked with
fcntl's open file description locks (fcntl(2), Linux 3.15): the kernel drops them when a process dies, however it dies,
and no file is made or removed for a lock. Two names for one byte would only wait for each other; among 2**62 there are
none. Within a process a queue per name comes first, so that those who wait for each other never ask the kernel.
Several locks are always taken in sorted order, so no two holders wait for each other.

Waiting takes no thread (:meth:`NamedLocks.take`): whoever lets go hands over. Only for another process one thread asks
the kernel again and again, for all who wait.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import math
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue

from dra_driver.errors import StateError

logger = logging.getLogger(__name__)

# Another process holds a lock only during a rolling update, so asking again is rare and may be cheap.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


class LockBusy(StateError):
    """Somebody else held a lock for longer than there was time."""

    reason = "LockBusy"


class Held:
    """Locks that are held until :meth:`release`, or to the end of a ``with``. Any thread may let go, once."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release

    def release(self) -> None:
        self._release()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_error: object) -> None:
        self._release()


Then = Callable[[Held | StateError], None]


class _Request:
    """Somebody's wish for several locks."""

    def __init__(self, names: tuple[str, ...], then: Then) -> None:
        self.names = names
        self.then = then
        self.queued = 0  # it stands in the queues of this many names, and is first in all but the last perhaps
        self.owned = 0  # it is first in the queues of this many
        self.settled = False  # it was told its answer, or is about to be
        self.descriptor = -1  # of the file, while bytes are asked for or held
        self.bytes = 0  # this many are held

    @property
    def is_first(self) -> bool:
        """In all its queues. Then whoever found that asks for its bytes, and nobody else touches them."""
        return self.owned == len(self.names)

    @property
    def waits_for(self) -> str:
        return self.names[self.bytes if self.is_first else self.owned]


class NamedLocks:
    """Locks by name, in ``file``. They are waited for as long as it takes or is allowed, until :meth:`stop`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._guard = threading.Lock()
        self._queues: dict[str, deque[_Request]] = {}
        self._polled: list[_Request] = []  # first in all their queues, but another process has a byte
        self._poller: threading.Thread | None = None
        self._stopping = False

    def stop(self) -> None:
        """Everybody who waits, now or later, gets a :class:`StateError`."""
        with self._guard:
            self._stopping = True
            standing = {request for queue in self._queues.values() for request in queue}
            waiting = [request for request in standing if not request.is_first or request in self._polled]
        for request in waiting:
            name = request.waits_for
            if self._give_up(request):
                request.then(StateError(f"the plugin is stopping and no longer waits for lock {name}"))

    def take(self, names: Iterable[str], then: Then, waiting: Callable[[str], None] = lambda name: None) -> Held | None:
        """Hold all of ``names``: at once, or else ``then`` is called with them later, or with why that cannot be.

        ``then`` runs on the thread that lets go of the last of them, so it must not block. ``waiting`` is told the name
        that has to be waited for. Raises :class:`StateError` when the file cannot be locked or the plugin is stopping.
        """
        request = _Request(tuple(sorted(set(names))), then)
        return self._take(request, waiting)

    @contextmanager
    def hold(
        self,
        names: Iterable[str],
        waiting: Callable[[str], None] = lambda name: None,
        *,
        until: float = math.inf,
    ) -> Iterator[None]:
        """Hold all of ``names``, waiting on this thread.

        Raises LockBusy when one is not free at ``until`` (of ``time.monotonic``).
        """
        answers: SimpleQueue[Held | StateError] = SimpleQueue()
        request = _Request(tuple(sorted(set(names))), answers.put)
        answer: Held | StateError | None = self._take(request, waiting)
        if answer is None:
            answer = self._answer(request, answers, until)
        if isinstance(answer, StateError):
            raise answer
        with answer:
            yield

    @contextmanager
    def try_hold(self, name: str) -> Iterator[bool]:
        """Hold ``name`` if nobody else does; tells whether that is so."""
        request = _Request((name,), lambda _answer: None)
        with self._guard:
            free = name not in self._queues
            if free:
                self._advance(request)
        if not free:
            yield False
            return
        with Held(lambda: self._leave(request)):
            yield self._take_bytes(request)

    def _take(self, request: _Request, waiting: Callable[[str], None]) -> Held | None:
        with self._guard:
            first = self._advance(request)
            busy = "" if first else request.waits_for
        if first:
            busy = self._ask(request)
            if not busy:
                return Held(lambda: self._leave(request))
        if self._stopping and self._give_up(request):
            raise StateError(f"the plugin is stopping and no longer waits for lock {busy}")
        waiting(busy)
        return None

    def _answer(self, request: _Request, answers: SimpleQueue[Held | StateError], until: float) -> Held | StateError:
        try:
            return answers.get(timeout=None if until == math.inf else max(0.0, until - time.monotonic()))
        except Empty:
            busy = request.waits_for
            if self._give_up(request):
                return LockBusy(
                    f"lock {busy} is held by another operation, of this plugin or of another one on this node",
                    hint="it is tried again; if it stays, end the old plugin's process, which hangs or was stopped",
                )
            return answers.get()  # it has just come

    # -- within the process -------------------------------------------------------------------------------------------

    def _advance(self, request: _Request) -> bool:
        """Whether it is first in the queues of all its names now. With the guard held."""
        while not request.is_first:
            name = request.names[request.owned]
            if request.queued == request.owned:
                self._queues.setdefault(name, deque()).append(request)
                request.queued += 1
            if self._queues[name][0] is not request:
                return False
            request.owned += 1
        return True

    def _leave(self, request: _Request) -> None:
        """Let go of everything it has or waits for, and hand over to those who come next."""
        if request.descriptor >= 0:
            # The bytes first: whoever is let in next must not find them taken, and ask the kernel again and again.
            os.close(request.descriptor)
            request.descriptor = -1
        following: list[_Request] = []
        with self._guard:
            request.settled = True
            for name in request.names[: request.queued]:
                queue = self._queues[name]
                was_first = queue[0] is request
                queue.remove(request)
                if not queue:
                    del self._queues[name]
                elif was_first and self._advance(queue[0]):
                    following.append(queue[0])
            request.queued = 0
        for next_one in following:
            self._hand_over(next_one)

    def _hand_over(self, request: _Request) -> None:
        """It is first in all its queues since somebody has left."""
        try:
            if not self._ask(request):
                self._tell(request)
        except StateError as error:
            if self._settle(request):
                request.then(error)

    def _tell(self, request: _Request) -> None:
        """It has all its locks."""
        if self._settle(request):
            request.then(Held(lambda: self._leave(request)))
        else:
            self._leave(request)  # it was given up meanwhile

    def _settle(self, request: _Request) -> bool:
        """Whether it is ours to tell it its answer; nobody else may from now on."""
        with self._guard:
            ours = not request.settled
            request.settled = True
        return ours

    def _give_up(self, request: _Request) -> bool:
        """Whether it was still waiting, and does so no longer."""
        with self._guard:
            if request.settled:
                return False
            request.settled = True
            asked_for = request.is_first
        if not asked_for:  # else whoever asks for its bytes finds it settled, and lets go
            self._leave(request)
        return True

    # -- between processes --------------------------------------------------------------------------------------------

    def _ask(self, request: _Request) -> str:
        """Take the bytes of one that is first in all its queues. Tells the name that another process has, or nothing.

        Raises :class:`StateError`, and then it has left.
        """
        if self._take_bytes(request):
            return ""
        busy = request.waits_for
        with self._guard:
            self._polled.append(request)
            if self._poller is None:
                self._poller = threading.Thread(target=self._poll, name="lock-poll", daemon=True)
                self._poller.start()
        return busy

    def _poll(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            with self._guard:
                polled = list(self._polled)
            for request in polled:
                try:
                    if self._poll_one(request):
                        pause = _FIRST_PAUSE
                except Exception:
                    # Thread boundary: whoever breaks at its answer must not leave the others waiting for ever.
                    logger.exception("handing over locks %s broke", ", ".join(request.names))
            with self._guard:
                if not self._polled:
                    self._poller = None
                    return

    def _poll_one(self, request: _Request) -> bool:
        """Whether there is nothing left to ask for it."""
        error: StateError | None = None
        try:
            if not request.settled and not self._take_bytes(request):
                return False
        except StateError as failure:
            error = failure
        with self._guard:
            self._polled.remove(request)
        if error is None:
            self._tell(request)
        elif self._settle(request):
            request.then(error)
        return True

    def _take_bytes(self, request: _Request) -> bool:
        """False when another process has one. Raises :class:`StateError`, and then the request has left."""
        try:
            if request.names and request.descriptor < 0:
                request.descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            for name in request.names[request.bytes :]:
                if not _lock_byte(request.descriptor, name):
                    return False
                request.bytes += 1
        except OSError as error:
            answered = request.settled
            self._leave(request)
            request.settled = answered
            raise StateError(
                f"cannot lock {self._file}: {error.strerror or error}",
                hint="check that the plugin's data folder is mounted from the host and writable",
            ) from error
        return True


def _lock_byte(descriptor: int, name: str) -> bool:
    """False when another process has it. Each holder has a file description of its own: the locks belong to that."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _write_lock(byte_of(name)))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EINTR):
            return False
        raise
    return True


def byte_of(name: str) -> int:
    """The offset of the byte that stands for ``name``."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 2


def _write_lock(offset: int) -> bytes:
    """struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid (0 for these locks)."""
    return struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
