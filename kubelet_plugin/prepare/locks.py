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
        """In all its queues. Then whoever found that asks for its bytes, and nobody else touches it."""
        return self.owned == len(self.names)

    @property
    def waits_for(self) -> str:
        """The last one when it has all by now."""
        return self.names[min(self.bytes if self.is_first else self.owned, len(self.names) - 1)]


class NamedLocks:
    """Locks by name, in ``file``. They are waited for as long as it takes or is allowed, until :meth:`stop`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._guard = threading.Lock()
        self._queues: dict[str, deque[_Request]] = {}
        self._polled: list[_Request] = []  # first in all their queues, but another process has a byte
        self._poller: threading.Thread | None = None
        self._handing_over = threading.local()  # ``coming``: those whom this thread lets in next
        self._stopping = False

    def stop(self) -> None:
        """Everybody who waits, now or later, gets a :class:`StateError`; nobody is let in by that."""
        with self._guard:
            self._stopping = True  # the thread that polls finds it
            waiting = {each: each.waits_for for queue in self._queues.values() for each in queue if not each.is_first}
            for request in waiting:
                request.settled = True
                self._withdraw(request)  # whoever follows waits too, so is among them
        for request, name in waiting.items():
            request.then(_stopping(name))

    def take(self, names: Iterable[str], then: Then, waiting: Callable[[str], None] = lambda name: None) -> Held | None:
        """Hold all of ``names``: at once, or else ``then`` is called with them later, or with why that cannot be.

        ``then`` runs on the thread that lets go of the last of them, perhaps before this returns, so it must not
        block. ``waiting`` is told the name that has to be waited for, before that; it must not come back here.
        Raises :class:`StateError` when the file cannot be locked or the plugin is stopping.
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
        with self._held(request):
            yield self._take_bytes(request)

    def _take(self, request: _Request, waiting: Callable[[str], None]) -> Held | None:
        with self._guard:
            first = self._advance(request)
            if not first and self._stopping:
                self._withdraw(request)  # it came last, so nobody follows
                raise _stopping(request.waits_for)
            if not first:
                waiting(request.waits_for)
        try:
            return self._held(request) if first and self._ask(request, waiting) else None
        except StateError:
            self._leave(request)
            raise

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

    def _withdraw(self, request: _Request) -> list[_Request]:
        """Take it out of its queues; those that are first in all of theirs now. With the guard held."""
        following: list[_Request] = []
        for name in request.names[: request.queued]:
            queue = self._queues[name]
            was_first = queue[0] is request
            queue.remove(request)
            if not queue:
                del self._queues[name]
            elif was_first and self._advance(queue[0]):
                following.append(queue[0])
        request.queued = 0
        return following

    def _held(self, request: _Request) -> Held:
        return Held(lambda: self._leave(request))

    def _leave(self, request: _Request) -> None:
        """Let go of everything it has, and hand over to those who come next."""
        self._hand_over(self._let_go(request))

    def _let_go(self, request: _Request) -> list[_Request]:
        if request.descriptor >= 0:
            # The bytes first: whoever is let in next must not find them taken, and ask the kernel again and again.
            os.close(request.descriptor)
            request.descriptor = -1
        with self._guard:
            return self._withdraw(request)

    def _hand_over(self, following: Iterable[_Request]) -> None:
        """They are first in all their queues since somebody has left. One that cannot be let in has others after it."""
        coming: deque[_Request] | None = getattr(self._handing_over, "coming", None)
        if coming is not None:  # one who was let in has let go at once: the loop that let it in goes on with these
            coming.extend(following)
            return
        self._handing_over.coming = coming = deque(following)
        try:
            while coming:
                request = coming.popleft()
                try:
                    answer: Held | StateError | None = self._held(request) if self._ask(request) else None
                except StateError as error:
                    answer = error
                if answer is not None:
                    coming.extend(self._tell(request, answer))
        finally:
            self._handing_over.coming = None

    def _tell(self, request: _Request, answer: Held | StateError) -> list[_Request]:
        """The answer to one that was first in all its queues; those who follow if it has left."""
        with self._guard:
            given_up = request.settled
            request.settled = True
        left = self._let_go(request) if given_up or isinstance(answer, StateError) else []
        if not given_up:
            try:
                request.then(answer)
            except Exception:
                # Whoever breaks at its answer must not leave the others waiting for ever, nor break who lets go.
                logger.exception("handing over locks %s broke", ", ".join(request.names))
        return left

    def _give_up(self, request: _Request) -> bool:
        """Whether it was still waiting, and does so no longer."""
        with self._guard:
            if request.settled:
                return False
            request.settled = True
            # Whoever asks for its bytes finds it settled, and lets go.
            following = [] if request.is_first else self._withdraw(request)
        self._hand_over(following)
        return True

    # -- between processes --------------------------------------------------------------------------------------------

    def _ask(self, request: _Request, waiting: Callable[[str], None] = lambda name: None) -> bool:
        """Take the bytes of one that is first in all its queues; False: another process has one, and it is polled.

        Raises :class:`StateError`, and then it has to leave.
        """
        if self._take_bytes(request):
            return True
        waiting(request.waits_for)
        with self._guard:
            if self._poller is None:
                poller = threading.Thread(target=self._poll, name="lock-poll", daemon=True)
                try:
                    poller.start()
                except RuntimeError as error:
                    raise StateError(f"cannot wait for lock {request.waits_for} of another process: {error}") from error
                self._poller = poller
            self._polled.append(request)
        return False

    def _poll(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            with self._guard:
                polled = list(self._polled)
            for request in polled:
                if self._poll_one(request):
                    pause = _FIRST_PAUSE
            with self._guard:
                if not self._polled:
                    self._poller = None
                    return

    def _poll_one(self, request: _Request) -> bool:
        """Whether there is nothing left to ask for it."""
        answer: Held | StateError = self._held(request)
        try:
            if not request.settled and not self._take_bytes(request):
                if not self._stopping:
                    return False
                answer = _stopping(request.waits_for)
        except StateError as error:
            answer = error
        with self._guard:
            self._polled.remove(request)
        self._hand_over(self._tell(request, answer))
        return True

    def _take_bytes(self, request: _Request) -> bool:
        """False when another process has one. Raises :class:`StateError`."""
        try:
            if request.names and request.descriptor < 0:
                request.descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            for name in request.names[request.bytes :]:
                if not _lock_byte(request.descriptor, name):
                    return False
                request.bytes += 1
        except OSError as error:
            raise StateError(
                f"cannot lock {self._file}: {error.strerror or error}",
                hint="check that the plugin's data folder is mounted from the host and writable",
            ) from error
        return True


def _stopping(name: str) -> StateError:
    return StateError(f"the plugin is stopping and no longer waits for lock {name}")


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
