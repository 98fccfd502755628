"""Runs the nvidia-smi of a driver root, for what NVML has no public function for.

No shell, an absolute path, a bare environment, a bounded time. From a container the program runs with the container's
own C library and the driver root's libnvidia-ml, as NVIDIA's DRA driver has it (its cmd/gpu-kubelet-plugin, nvlib.go).
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from dra_driver.errors import HardwareError
from dra_driver.hardware.nvml.codes import code_name
from dra_driver.hardware.programs import PROGRAM_FOLDERS, find_program

logger = logging.getLogger(__name__)

PROGRAM: Final = "nvidia-smi"

_ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_ENDS_SECONDS = 1.0  # for a process that was killed; one that the kernel holds in the driver does not end
_MOST_TOLD = 300  # characters of the output in a message


class SmiMissing(HardwareError):
    """The driver root has no nvidia-smi."""

    reason = "NvidiaSmiMissing"


class SmiHangs(HardwareError):
    """nvidia-smi was killed, since it did not end in time."""

    reason = "NvidiaSmiHangs"


class SmiFailed(HardwareError):
    """nvidia-smi refused or could not do it. ``code``: its exit code, an NVML code in most cases."""

    reason = "NvidiaSmiFailed"

    def __init__(self, message: str, *, code: int, output: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.output = output

    @property
    def by_signal(self) -> bool:
        """Whether it was ended in the middle of what it did."""
        return self.code < 0


class CallEnd(StrEnum):
    """How a call of nvidia-smi ended."""

    DONE = "done"
    FAILED = "failed"
    KILLED = "killed"


class SmiObserver(Protocol):
    """Who is told of each call. Must not raise."""

    def called(self, command: str, seconds: float, end: CallEnd) -> None: ...


class NvidiaSmi:
    """Thread-safe; each call is a process of its own."""

    def __init__(
        self, root: Path, timeout: float, library: Callable[[], Path | None], observer: SmiObserver | None = None
    ) -> None:
        """``timeout``: seconds. ``library``: the libnvidia-ml to run with; None where the dynamic linker knows best."""
        self._root = root
        self._timeout = timeout
        self._library = library
        self._observer = observer

    def run(self, command: str, *arguments: str) -> str:
        """What it wrote. ``command``: what is asked for, in a word, for metrics.

        Raises SmiMissing, SmiHangs, SmiFailed.
        """
        program = find_program(self._root, PROGRAM)
        if program is None:
            looked = ", ".join(f"{self._root / folder[1:]}/{PROGRAM}" for folder in PROGRAM_FOLDERS)
            raise SmiMissing(
                f"no {PROGRAM} under driver root {self._root}; looked for {looked}",
                hint="install it with the NVIDIA driver (it is in the driver's utilities package), "
                "or point the driver root at the folder that holds it",
            )
        begun = time.monotonic()
        end = CallEnd.FAILED
        try:
            output = self._run(program, arguments)
            end = CallEnd.DONE
        except SmiHangs:
            end = CallEnd.KILLED
            raise
        finally:
            seconds = time.monotonic() - begun
            logger.debug("nvidia-smi %s: %s after %.3f s", " ".join(arguments), end, seconds)
            if self._observer is not None:
                self._observer.called(command, seconds, end)
        return output

    def _run(self, program: Path, arguments: tuple[str, ...]) -> str:
        line = f"{PROGRAM} {' '.join(arguments)}"
        try:
            process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=self._environment(),
                start_new_session=True,  # so that whatever it starts can be killed with it
            )
        except OSError as error:
            raise SmiFailed(
                f"cannot run {program}: {error.strerror or error}",
                code=error.errno or 0,
                output="",
                hint="it must be a program that runs in the plugin's container",
            ) from error
        try:
            output, _ = process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            raise SmiHangs(
                f"{line} did not end within {self._timeout:g} s{_kill(process)}",
                hint="the GPU or its driver does not answer; it is tried again",
            ) from None
        text = output.decode(errors="replace")
        if process.returncode != 0:
            raise _failure(line, process.returncode, text)
        return text

    def _environment(self) -> dict[str, str]:
        """Not the library's folder in LD_LIBRARY_PATH: the driver root's C library may lie there, and another one than
        the container's dynamic linker belongs to."""
        library = self._library()
        return {**_ENVIRONMENT, **({} if library is None else {"LD_PRELOAD": str(library)})}


def _kill(process: subprocess.Popen[bytes]) -> str:
    """What became of it. One that the kernel holds is left, and reaped by a later call of subprocess."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdout is not None:
        process.stdout.close()
    try:
        process.wait(_ENDS_SECONDS)
    except subprocess.TimeoutExpired:
        return f", and cannot be killed: process {process.pid} hangs in the kernel"
    return " and was killed"


def _failure(line: str, code: int, output: str) -> SmiFailed:
    said = " ".join(output.split())[-_MOST_TOLD:] or "without a word"
    ended = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code} ({code_name(code)})"
    return SmiFailed(f"{line} {ended}: {said}", code=code, output=output)
