"""Commands to a control daemon, by the program that its driver has for that: the words in and out are NVIDIA's.

``nvidia-cuda-mps-control`` without options reads commands from standard input and prints answers (its man page); with
protocol 3 one command is its arguments (MPS v3 Interface, CLI Command Structure). What goes over the pipe is not
documented, so the program is run for each question, with several commands where they belong together. The daemon's pipe
directory is given, so no other daemon can be meant.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from dra_driver.mps.group import NAMED, GroupFolders
from kubelet_plugin.mps_supervisor.namespaces import Isolation, no_input
from kubelet_plugin.mps_supervisor.surroundings import Home

PERCENTAGE: Final = "get_default_active_thread_percentage"
SERVERS: Final = "get_server_list"
START_SERVER: Final = "start_server"  # -uid UID
STATUS: Final = "get_server_status"  # of a server, by its process id
CLIENTS: Final = "get_client_list"  # the same

_ENDS_SECONDS = 1.0  # for a program that was killed
# What the program says without a daemon: of protocol 2; the pages do not have the words of protocol 3.
_NOBODY = "Cannot find MPS control daemon process"
_MOST_TOLD = 300  # characters of an answer in a message


class NoAnswer(Exception):
    """The daemon is not there, or has not answered in time; the text says which."""


class Declined(Exception):
    """The daemon has answered that it will not; the text is what it said. Of protocol 3 only."""


class Runs(Protocol):
    """Who is told of each run of the program. Must not raise."""

    def asked(self, seconds: float) -> None:
        """``seconds``: from when the program was there until it had ended, or was given up."""
        ...


class Control:
    def __init__(self, home: Home, isolation: Isolation, runs: Runs) -> None:
        self._home = home
        self._isolation = isolation
        self._runs = runs

    def ask(self, folders: GroupFolders, *commands: str, seconds: float) -> tuple[str, ...]:
        """The lines of all answers. Raises NoAnswer, OSError, GroupFailed (the program is not installed)."""
        program = self._home.client(folders, self._home.control())
        process = self._isolation.start(program, (), standard_input=subprocess.PIPE, output=subprocess.PIPE)
        said = "".join(f"{command}\n" for command in commands).encode()
        try:
            with self._counted():
                output, _ = process.communicate(said, timeout=seconds)
        except subprocess.TimeoutExpired:
            kill(process)
            raise NoAnswer(f"no answer to {commands[0]} within {seconds:g} s") from None
        text = output.decode(errors="replace")
        if process.returncode != 0:
            raise NoAnswer(f"{commands[0]}: {shortened(text) or f'exit code {process.returncode}'}")
        return _lines(text)

    def run(self, folders: GroupFolders, *words: str, seconds: float) -> tuple[str, ...]:
        """The lines of the answer to one command of protocol 3. Raises NoAnswer, Declined, OSError, GroupFailed (the
        program is not installed)."""
        program = self._home.client(folders, self._home.control(), NAMED)
        with no_input() as null:
            process = self._isolation.start(program, words, standard_input=null, output=subprocess.PIPE)
        with self._counted():
            return outcome(process, " ".join(words), seconds)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._runs.asked(time.monotonic() - began)


def outcome(process: subprocess.Popen[bytes], what: str, seconds: float) -> tuple[str, ...]:
    """The lines that a program prints, when it ends well within ``seconds``. Raises NoAnswer, Declined."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill(process)
        raise NoAnswer(f"no answer to {what} within {seconds:g} s") from None
    text = output.decode(errors="replace")
    if process.returncode == 0:
        return _lines(text)
    if _NOBODY in text:
        raise NoAnswer(f"{what}: {shortened(text)}")
    raise Declined(shortened(text) or f"{what}: exit code {process.returncode}")


def settings_commands(percentage: int | None, limits: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """What a daemon is told at its start (NVIDIA's templates/mps-control-daemon.tmpl.yaml), and a last question."""
    return (
        *(() if percentage is None else (f"set_default_active_thread_percentage {percentage}",)),
        *(f"set_default_device_pinned_mem_limit {device} {mebibytes}M" for device, mebibytes in limits),
        PERCENTAGE,
    )


def refused(percentage: int | None, answer: Sequence[str]) -> str | None:
    """What the daemon would not do of :func:`settings_commands`; None when all is as wanted.

    Only numbers are answered when all goes well: a changed value is printed by some versions.
    """
    words = [line for line in answer if _number(line) is None]
    if words:
        return shortened(" ".join(words))
    if not answer:
        return f"nothing was answered to {PERCENTAGE}"
    if percentage is not None and _number(answer[-1]) != percentage:
        return f"the active thread percentage is {answer[-1]}, not {percentage}"
    return None


def whole_numbers(lines: Sequence[str]) -> tuple[int, ...]:
    """Process ids, as get_server_list and get_client_list print them."""
    return tuple(int(line) for line in lines if line.isdigit())


def shortened(text: str) -> str:
    return " ".join(text.split())[-_MOST_TOLD:]


def last_words(file: Path) -> str:
    """The end of a log; empty where there is none."""
    try:
        return shortened(file.read_text(errors="replace"))
    except OSError:
        return ""


def kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started: it has a session of its own. One that the kernel holds is left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_ENDS_SECONDS)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
