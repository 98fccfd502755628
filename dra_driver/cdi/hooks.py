"""Which ``nvidia-cdi-hook`` of the host CDI files name, whether a runtime can run it, and which hooks it has.

The program is the host's and runs on the host; this process may be in a container with another C library, another
``/proc`` and no right to run it. So nothing is executed here: the file is looked at, and which hooks it has is read
from the names in it, as each is the text of a subcommand (cmd/nvidia-cdi-hook/commands of nvidia-container-toolkit).
A hook that is asked for and unknown to the program would do nothing; one that cannot be run fails every container.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from dra_driver.cdi import file_states
from dra_driver.cdi.elf import other_machine
from dra_driver.cdi.file_states import FileState, Look, watched
from dra_driver.cdi.roots import Root
from dra_driver.errors import HardwareError

logger = logging.getLogger(__name__)

HOOK_NAME = "nvidia-cdi-hook"
APPLICATION_PROFILE = "update-application-profile"
MEMORY_LIMITS = "apply-cuda-memory-limits"

_TOOLKIT_NAME = "nvidia-ctk"  # has the hooks below a subcommand of its own
_CHUNK = 1 << 20
_LONGEST_PROGRAM = 256 << 20  # ten times a real one; what is longer is not read to its end


@dataclass(frozen=True, slots=True)
class HookPlace:
    """Where the program may be. ``required``: the configuration names it, so it has to be there."""

    root: Root
    path: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class HookProgram:
    """A program that a runtime can run. ``path`` is the host's, ``arguments`` come before a hook's own.

    ``application_profile``: it has the hook of toolkit 1.20 that keeps EGL and Vulkan to the container's GPUs;
    ``memory_limits``: it has the one of 1.20.1 that limits a GPU's memory for the container's cgroup.
    """

    path: str
    arguments: tuple[str, ...] = (HOOK_NAME,)
    application_profile: bool = False
    memory_limits: bool = False


class HookFinder:
    """Thread-safe. The answer is remembered until one of the files is another.

    ``places``: best first. ``architecture``: the machine's (``x86_64``).
    """

    def __init__(self, places: Sequence[HookPlace], architecture: str) -> None:
        self._places = tuple(places)
        self._watched = tuple(watched(place.root, place.path) for place in self._places)
        self._architecture = architecture
        self._lock = threading.Lock()
        self._remembered: tuple[tuple[FileState, ...], HookProgram | None] | None = None
        self._warned: tuple[str, ...] = ()

    def find(self) -> HookProgram | None:
        """The first program that can be used; None when there is none at all, and files are made without hooks.

        Raises ``HardwareError``, retryable, when there is one and it cannot be used, or when a required one is missing.
        """
        with self._lock:
            look = Look()
            states = tuple(map(look.state, self._watched))
            if self._remembered and self._remembered[0] == states:
                return self._remembered[1]
            self._remembered = None
            program = self._find()
            if file_states.settled(states):
                self._remembered = states, program
            return program

    def _find(self) -> HookProgram | None:
        unusable: list[HardwareError] = []
        for place in self._places:
            try:
                program = _look(place, self._architecture)
            except HardwareError as error:
                unusable.append(error)
                continue
            if program is not None:
                self._warn(unusable)
                return program
        if unusable:
            raise unusable[0]
        return None

    def _warn(self, unusable: Sequence[HardwareError]) -> None:
        """Of those before the one that is used; once, not at every look."""
        told = tuple(map(str, unusable))
        if told != self._warned:
            for text in told:
                logger.warning("another nvidia-cdi-hook is used: %s", text)
        self._warned = told


def _look(place: HookPlace, architecture: str) -> HookProgram | None:
    """None when nothing is there."""
    root, path = place.root, place.path
    found = root.resolve(path)
    if found is None:
        link = _link(root, path)
        if link is None and not place.required:
            return None
        raise _unusable(place, f"is a link to {link} that leads to no file in {root.host}" if link else "is not there")
    visible = root.visible_path(found)
    try:
        problem = _problem(visible, architecture)
        if problem is None:
            has = _hooks_in(visible, (APPLICATION_PROFILE, MEMORY_LIMITS))
            return HookProgram(
                _host_path(root, path, found),
                _arguments(path),
                application_profile=APPLICATION_PROFILE in has,
                memory_limits=MEMORY_LIMITS in has,
            )
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
    raise _unusable(place, problem)


def _problem(visible: Path, architecture: str) -> str | None:
    """Why no runtime can run it, or None."""
    status = os.stat(visible)
    if stat.S_ISDIR(status.st_mode):
        return "is a folder"
    if not stat.S_ISREG(status.st_mode):
        return "is not a file"
    if not status.st_mode & 0o111:
        return "is not executable"
    if not status.st_size:
        return "is empty"
    with _opened(visible) as file:
        other = other_machine(file.read(64), architecture)
    return f"is a program for {other}, and this node is {architecture}" if other else None


def _link(root: Root, path: str) -> str | None:
    """What the link at ``path`` says; None when there is no link. Links above it are followed."""
    folder, name = os.path.split(path)
    inside = root.resolve(folder)
    if inside is None:
        return None
    try:
        return os.readlink(root.visible_path(f"{inside}/{name}"))
    except OSError:  # EINVAL, ENOENT, ENOTDIR: no link
        return None


def _unusable(place: HookPlace, problem: str) -> HardwareError:
    host, seen = place.root.host_path(place.path), place.root.visible_path(place.path)
    where = host if str(seen) == host else f"{host} (seen here as {seen})"
    otherwise = "set nvidia-cdi-hook-path to where it is" if place.required else f"remove {host} to do without hooks"
    return HardwareError(
        f"the CDI hook cannot be used: {where} {problem}", hint=f"install nvidia-container-toolkit anew, or {otherwise}"
    )


def _host_path(root: Root, path: str, found: str) -> str:
    """The link, as it survives an update of the toolkit; its end where the host would follow the link elsewhere."""
    return root.host_path(path if root.host == "/" else found)


def _arguments(path: str) -> tuple[str, ...]:
    """As internal/discover/hooks.go of nvidia-container-toolkit, getFixedArgsForCDIHookCLI."""
    return (_TOOLKIT_NAME, "hook") if PurePosixPath(path).name == _TOOLKIT_NAME else (HOOK_NAME,)


def _hooks_in(program: Path, names: Sequence[str]) -> frozenset[str]:
    """Those of ``names`` that the program has."""
    missing, longest = set(names), max(map(len, names))
    with _opened(program) as file:
        before = b""
        for chunk in _chunks(file):
            text = before + chunk
            missing -= {name for name in missing if name.encode() in text}
            if not missing:
                break
            before = text[-longest:]
    return frozenset(names) - missing


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    for _ in range(_LONGEST_PROGRAM // _CHUNK):
        chunk = file.read(_CHUNK)
        if not chunk:
            return
        yield chunk


def _opened(path: Path) -> BinaryIO:
    return path.open("rb", buffering=0)
