"""control.log and server.log, in the form of the real ones: "[2024-04-05 12:49:05.086 Control    61] NEW UI"."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


class Log:
    """Appends to ``path``; ``echo`` is a second file descriptor for every line (the terminal's, in the foreground)."""

    def __init__(self, path: Path, who: str, echo: int | None = None) -> None:
        self._who = who
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._echo = echo

    def __call__(self, text: str) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        line = f"[{stamp}.{int(now * 1000) % 1000:03d} {self._who} {os.getpid():5d}] {text}\n".encode()
        os.write(self._file, line)
        if self._echo is not None:
            os.write(self._echo, line)


def to_null() -> None:
    """The standard files of a daemon."""
    null = os.open(os.devnull, os.O_RDWR)
    sys.stdout.flush()
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    if null > 2:
        os.close(null)
