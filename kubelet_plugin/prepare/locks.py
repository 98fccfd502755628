"""Locks that hold between threads and between processes: an old and a new plugin pod overlap during a rolling update.

A lock is a name. Between processes it is one byte of one file, at an offset that the name's hash gives, locked with
fcntl's open file description locks (fcntl(2), Linux 3.15): the kernel drops them when a process dies, however it dies,
and no file is made or removed for a lock. Two names for one byte would only wait for each other; among 2**62 there are
none. Within a process a mutex per name comes first, so that threads wait for each other without asking the kernel.
Several locks are always taken in sorted order, so no two holders wait for each other.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import math
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dra_driver.errors import StateError

# Another process holds a lock only during a rolling update, so asking again is rare and may be cheap.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05
_ASK_FOR_STOP = 0.25


class LockBusy(StateError):
    """Somebody else held a lock for longer than there was time."""

    reason = "LockBusy"


class NamedLocks:
    """Locks by name, in ``file``. ``hold`` waits as long as it takes or is allowed, unless :meth:`stop` is called."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._guard = threading.Lock()
        self._mutexes: dict[str, _Mutex] = {}
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Everybody who waits, now or later, gets a :class:`StateError`."""
        self._stopping.set()

    @contextmanager
    def hold(
        self,
        names: Iterable[str],
        waiting: Callable[[str], None] = lambda name: None,
        *,
        until: float = math.inf,
    ) -> Iterator[None]:
        """Hold all of ``names``. ``waiting`` is told the name that has to be waited for.

        Raises LockBusy when one is not free at ``until`` (of ``time.monotonic``).
        """
        with ExitStack() as held:
            wanted = sorted(set(names))
            for name in wanted:
                self._take_mutex(held, name, waiting, until)
            if wanted:
                # Last in, first out: the bytes are free before the next thread of this process is let in.
                descriptor = self._open(held)
                for name in wanted:
                    self._take_byte(descriptor, name, waiting, until)
            yield

    @contextmanager
    def try_hold(self, name: str) -> Iterator[bool]:
        """Hold ``name`` if nobody else does; tells whether that is so."""
        with ExitStack() as held:
            mutex = self._enter(held, name)
            taken = mutex.lock.acquire(blocking=False)
            if taken:
                held.callback(mutex.lock.release)
                taken = self._lock_byte(self._open(held), name)
            yield taken

    def _take_mutex(self, held: ExitStack, name: str, waiting: Callable[[str], None], until: float) -> None:
        mutex = self._enter(held, name)
        if not mutex.lock.acquire(blocking=False):
            waiting(name)
            while not mutex.lock.acquire(timeout=max(0.0, min(_ASK_FOR_STOP, until - time.monotonic()))):
                self._check_wait(name, until)
        held.callback(mutex.lock.release)

    def _take_byte(self, descriptor: int, name: str, waiting: Callable[[str], None], until: float) -> None:
        pause = _FIRST_PAUSE
        while not self._lock_byte(descriptor, name):
            if pause == _FIRST_PAUSE:
                waiting(name)
            self._check_wait(name, until)
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _check_wait(self, name: str, until: float) -> None:
        if self._stopping.is_set():
            raise StateError(f"the plugin is stopping and no longer waits for lock {name}")
        if time.monotonic() >= until:
            raise LockBusy(f"lock {name} is held by another operation, of this plugin or of another one on this node")

    def _enter(self, held: ExitStack, name: str) -> _Mutex:
        """The name's mutex, kept as long as anybody holds it or waits for it."""
        with self._guard:
            mutex = self._mutexes.setdefault(name, _Mutex())
            mutex.users += 1
        held.callback(self._leave, name, mutex)
        return mutex

    def _leave(self, name: str, mutex: _Mutex) -> None:
        with self._guard:
            mutex.users -= 1
            if not mutex.users:
                del self._mutexes[name]

    def _open(self, held: ExitStack) -> int:
        """A file description of its own for each holder: the locks belong to it and go when it is closed."""
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._cannot(error) from error
        held.callback(os.close, descriptor)
        return descriptor

    def _lock_byte(self, descriptor: int, name: str) -> bool:
        """False when another process has it."""
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _write_lock(byte_of(name)))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                return False
            raise self._cannot(error) from error
        return True

    def _cannot(self, error: OSError) -> StateError:
        return StateError(
            f"cannot lock {self._file}: {error.strerror or error}",
            hint="check that the plugin's data folder is mounted from the host and writable",
        )


class _Mutex:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


def byte_of(name: str) -> int:
    """The offset of the byte that stands for ``name``."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 2


def _write_lock(offset: int) -> bytes:
    """struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid (0 for these locks)."""
    return struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
