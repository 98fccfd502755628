"""The command language where the shell has no tools for it: ``python -m ...mps.ui STATE [COMMAND...]``.

Commands of protocol 2 come from standard input, one of protocol 3 as arguments.

The image of the driver has Python, and neither mkfifo nor timeout; containers are the other way round. It speaks as the
shell script does (``scripts``, ``pipes``), and ends with its exit codes.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path

from dra_driver.simulation.hardware.mps.pipes import CLIENTS, CONTROL, pipe_directory

_LOOK_MILLISECONDS = 500  # how often a daemon that does not answer is looked at


class NoDaemon(Exception):
    """None is there, or it has ended meanwhile."""


def main(arguments: Sequence[str]) -> int:
    folder = pipe_directory(os.environ)
    try:
        os.close(_open_control(folder))
        if arguments[1:]:
            word, *answer = _ask(folder, " ".join(arguments[1:]))
            (sys.stdout if word == "ok" else sys.stderr).write("".join(f"{each}\n" for each in answer))
            return 0 if word == "ok" else 1
        for line in sys.stdin:
            text = line.strip()
            word, *answer = _ask(folder, text)
            sys.stdout.write("".join(f"{each}\n" for each in answer))
            sys.stdout.flush()
            if word == "ok" and text.startswith("quit"):
                return 0
    except NoDaemon:
        sys.stderr.write("Cannot find MPS control daemon process\n")
        return 1
    return 0


def _ask(folder: Path, text: str) -> list[str]:
    """ "ok" or "error", and the lines of the answer."""
    identifier, fifo = _make_fifo(folder)
    try:
        reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            control = _open_control(folder)
            os.write(control, f"command {identifier} {text}\n".encode())
            os.close(control)
            said = _read(reading, folder)
        finally:
            os.close(reading)
    finally:
        fifo.unlink(missing_ok=True)
    taken, *answer = said.decode().splitlines() or [""]
    if taken != "taken" or not answer:
        raise NoDaemon
    return answer


def _make_fifo(folder: Path) -> tuple[str, Path]:
    number = 0
    while True:
        identifier = f"{os.getpid()}.{number}"
        fifo = folder / CLIENTS / f"{identifier}.in"
        with contextlib.suppress(FileExistsError):  # of one with the same id in another PID namespace
            os.mkfifo(fifo, 0o600)
            return identifier, fifo
        number += 1


def _open_control(folder: Path) -> int:
    try:
        return os.open(folder / CONTROL, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:  # without a reader too: what a killed daemon left
        raise NoDaemon from error


def _read(reading: int, folder: Path) -> bytes:
    """All until the end of the file, which comes with the end of the answer or of the daemon."""
    said = b""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    while True:
        if not poll.poll(_LOOK_MILLISECONDS):
            os.close(_open_control(folder))
            continue
        part = os.read(reading, 65536)
        if not part:
            return said
        said += part


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
