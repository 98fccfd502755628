"""Finds and loads libnvidia-ml.so.1, on the node itself or under a driver root (a driver container's tree)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dra_driver.errors import HardwareUnavailable
from dra_driver.hardware.library_folders import library_folders
from dra_driver.hardware.nvml import binding
from dra_driver.hardware.rooted import resolve_inside

LIBRARY = "libnvidia-ml.so.1"

_MAPPINGS = Path("/proc/self/maps")
_NAME = re.compile(r"libnvidia-ml\.so(?:\.\d+)+")
_DELETED = " (deleted)"  # what the kernel appends to the name of a file that was replaced
_HINT = "install the NVIDIA driver on this node, or set the driver root to the folder that holds it"


def load_driver_library(driver_root: Path | None) -> None:
    """Load the library unless one is in place already (loaded before, or a simulated one).

    Without a driver root, or with "/", the dynamic linker is asked first. With another one only that root is searched:
    this container's own library would talk to another driver. HardwareUnavailable names everything that was tried.
    """
    if binding.library() is not None:
        return
    own = driver_root is None or driver_root == Path("/")
    linker_said = _load_by_soname() if own else ""
    if own and not linker_said:
        return
    root = driver_root or Path("/")
    found = find_library(root)
    if found is not None:
        _load(found)
        return
    looked = [f"{root / folder[1:]}/{LIBRARY}" for folder in library_folders(root)]
    broken = [f"; {path} leads by links to no file inside that root" for path in looked if os.path.lexists(path)]
    asked = f"; the dynamic linker says: {linker_said}" if linker_said else ""
    raise HardwareUnavailable(
        f"no {LIBRARY} under driver root {root}; looked for {', '.join(looked)}{''.join(broken)}{asked}", hint=_HINT
    )


def find_library(root: Path) -> Path | None:
    """What a process that starts now would load under ``root``, links resolved; None when there is none.

    In each folder the usual link comes before a file that has lost its link.
    """
    for folder in library_folders(root):
        for name in (LIBRARY, *_versioned(root, folder)):
            found = _file(root, f"{folder}/{name}")
            if found is not None:
                return found
    return None


def loaded_library() -> Path | None:
    """The file that NVML's functions come from in this process, as it sees it; None when it was not loaded from one."""
    try:
        mappings = _MAPPINGS.read_text(errors="replace")
    except OSError:
        return None  # without /proc nothing is known of it
    for line in mappings.splitlines():
        path = line.partition("/")[2].removesuffix(_DELETED)
        if _NAME.fullmatch(os.path.basename(path)):
            return Path("/") / path
    return None


def _versioned(root: Path, folder: str) -> list[str]:
    try:
        names = os.listdir(resolve_inside(root, folder))
    except OSError:
        return []  # most of the folders are not there
    return sorted(name for name in names if _NAME.fullmatch(name) and name != LIBRARY)


def _file(root: Path, path: str) -> Path | None:
    """What ``path`` leads to inside the root; None when that is no file, or a circle of links."""
    try:
        found = resolve_inside(root, path)
    except OSError:
        return None
    return found if found.is_file() else None


def _load_by_soname() -> str:
    """What the dynamic linker complains about; "" when it found the library (LD_LIBRARY_PATH, ld.so.cache)."""
    try:
        binding.load(LIBRARY)
    except OSError as error:
        return str(error)
    return ""


def _load(path: Path) -> None:
    try:
        binding.load(str(path))
    except OSError as error:
        raise HardwareUnavailable(f"cannot load {path}: {error}", hint=_HINT) from error
