"""How the hook hands a request over: a folder for each, and a bell.

The hook makes ``<folder>/<its pid>.<number>/``, writes claim, share and the OCI state to a file in it, renames that to
``state`` and rings the bell, a FIFO. Whoever renames ``state`` to a name of its own answers, so of two plugins that
overlap one does. The answer is a file too, ``answer``: a word, and a sentence. When the hook has read it, it renames it
to ``seen``. Whose hook is gone is removed some time later.

Requests that come while no plugin runs wait in their folders. One that is older than its hook waits is not answered:
the hook has given up, and the process that it names may be another by now.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dra_driver.files import Durability, write_atomically
from dra_driver.text import shortened

FOLDER: Final = "requests"
BELL: Final = "bell"
WRITING, STATE, ANSWER, SEEN = "writing", "state", "answer", "seen"
_TAKEN: Final = "taken"
_LINE: Final = 1000


@dataclass(frozen=True, slots=True)
class Request:
    """``words`` are the hook's arguments. ``until``: of time.monotonic, when the hook gives up."""

    folder: Path
    claim_uid: str
    key: str
    state: str
    until: float

    def answer(self, refusal: str | None) -> None:
        """None: it is done. Nothing happens when the request is gone. Raises OSError."""
        text = "ok\n\n" if refusal is None else f"refused\n{shortened(' '.join(refusal.split()), _LINE)}\n"
        with contextlib.suppress(FileNotFoundError):
            write_atomically(self.folder / ANSWER, text.encode(), mode=0o600, durability=Durability.NONE)


class Requests:
    """The plugin's side, in ``folder``. ``wait_seconds``: how long a hook waits. Methods raise OSError."""

    def __init__(self, folder: Path, wait_seconds: float, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._wait_seconds = wait_seconds
        self._wall_clock = wall_clock
        self._bell = -1
        self._wake = -1

    def open(self) -> None:
        """From now on the bell is heard. It may be another plugin's too."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        bell = self._folder / BELL
        with contextlib.suppress(FileExistsError):
            os.mkfifo(bell, 0o600)
        if not stat.S_ISFIFO(os.lstat(bell).st_mode):
            bell.unlink()
            os.mkfifo(bell, 0o600)
        # For reading and writing: the end of one hook is not the end of the pipe.
        self._bell = os.open(bell, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def wake(self) -> None:
        """End :meth:`wait`, now and for good: the bell would be another plugin's to hear."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def wait(self, seconds: float) -> None:
        """Until the bell rings, but no longer than that."""
        select.select([self._bell, self._wake], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._bell, 65536):
                pass

    def close(self) -> None:
        """The bell stays for other plugins, and is rung: we may have heard what they did not. May be repeated."""
        if self._bell >= 0:
            with contextlib.suppress(BlockingIOError):  # it is full of rings
                os.write(self._bell, b"\n")
            os.close(self._bell)
            os.close(self._wake)
            self._bell = self._wake = -1

    def take(self) -> Request | None:
        """One that nobody has taken; None when there is none."""
        for folder in sorted(self._folders()):
            try:
                os.rename(folder / STATE, folder / _TAKEN)
                age = self._wall_clock() - os.stat(folder / _TAKEN).st_mtime
                text = (folder / _TAKEN).read_text(errors="replace")
            except FileNotFoundError:
                continue  # it is being written, or somebody else's
            claim, _, rest = text.partition("\n")
            key, _, state = rest.partition("\n")
            if -1.0 < age < self._wait_seconds:
                return Request(folder, claim, key, state, time.monotonic() + self._wait_seconds - max(0.0, age))
        return None

    def sweep(self) -> None:
        """Remove the folders of hooks that are gone."""
        for folder in self._folders():
            with contextlib.suppress(FileNotFoundError):
                if self._wall_clock() - os.stat(folder).st_mtime > 2 * self._wait_seconds:
                    shutil.rmtree(folder)

    def _folders(self) -> list[Path]:
        return [each for each in self._folder.iterdir() if each.is_dir()]
