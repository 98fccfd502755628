"""Locks that hold between threads and between processes: an old and a new plugin pod overlap during a rolling update.

A lock is a name and a file ``<folder>/<name>.lock`` under flock. Between processes only flock counts (the kernel drops
it when a process dies, however it dies); within a process a mutex per name comes first, because flock belongs to an
open file and not to a thread. Several locks are always taken in sorted order, so no two holders wait for each other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dra_driver.errors import StateError

# Another process holds a lock only during a rolling update, so asking again is rare and may be cheap.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05
_ASK_FOR_STOP = 0.25


class NamedLocks:
    """Locks by name. ``hold`` waits as long as it takes, unless :meth:`stop` is called."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._mutexes: dict[str, _Mutex] = {}
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Everybody who waits, now or later, gets a :class:`StateError`."""
        self._stopping.set()

    @contextmanager
    def hold(self, names: Iterable[str], waiting: Callable[[str], None] = lambda name: None) -> Iterator[None]:
        """Hold all of ``names``. ``waiting`` is told the name that has to be waited for."""
        with ExitStack() as held:
            for name in sorted(set(names)):
                self._take(held, name, waiting)
            yield

    @contextmanager
    def try_hold(self, name: str) -> Iterator[bool]:
        """Hold ``name`` if nobody else does; tells whether that is so."""
        with ExitStack() as held:
            mutex = self._enter(held, name)
            taken = mutex.lock.acquire(blocking=False)
            if taken:
                held.callback(mutex.lock.release)
                taken = self._lock_file(held, name, lambda: False)
            yield taken

    def forget(self, name: str) -> None:
        """Remove the file of a lock that the caller holds and that will not be needed again."""
        self._path(name).unlink(missing_ok=True)

    def names(self) -> tuple[str, ...]:
        """Names of all locks that have a file."""
        try:
            return tuple(sorted(path.stem for path in self._folder.glob("*.lock")))
        except OSError as error:
            raise StateError(f"cannot list locks in {self._folder}: {error.strerror or error}") from error

    def _take(self, held: ExitStack, name: str, waiting: Callable[[str], None]) -> None:
        mutex = self._enter(held, name)
        if not mutex.lock.acquire(blocking=False):
            waiting(name)
            while not mutex.lock.acquire(timeout=_ASK_FOR_STOP):
                self._check_stop(name)
        held.callback(mutex.lock.release)
        pause = _FIRST_PAUSE
        told = False

        def wait() -> bool:
            nonlocal pause, told
            if not told:
                waiting(name)
                told = True
            self._check_stop(name)
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            return True

        self._lock_file(held, name, wait)

    def _check_stop(self, name: str) -> None:
        if self._stopping.is_set():
            raise StateError(f"the plugin is stopping and no longer waits for lock {name}")

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

    def _lock_file(self, held: ExitStack, name: str, wait: Callable[[], bool]) -> bool:
        """flock the name's file. ``wait`` is called when another process has it; False from it gives up."""
        path = self._path(name)
        try:
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if _is_the_file(descriptor, path):
                        held.callback(os.close, descriptor)
                        return True
                except OSError as error:
                    os.close(descriptor)
                    if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                        raise
                    if not wait():
                        return False
                else:
                    os.close(descriptor)  # its holder removed the file between our open and our lock
        except OSError as error:
            raise StateError(f"cannot lock {path}: {error.strerror or error}") from error

    def _path(self, name: str) -> Path:
        if "/" in name or name.startswith("."):
            raise StateError(f"{name!r} cannot be the name of a lock")
        return self._folder / f"{name}.lock"


class _Mutex:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


def _is_the_file(descriptor: int, path: Path) -> bool:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)
