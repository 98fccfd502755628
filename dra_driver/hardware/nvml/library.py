"""Finds and loads libnvidia-ml.so.1, on the node itself or under a driver root (a driver container's tree)."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from dra_driver.errors import HardwareUnavailable
from dra_driver.hardware.nvml import binding
from dra_driver.hardware.rooted import resolve_inside

logger = logging.getLogger(__name__)

LIBRARY = "libnvidia-ml.so.1"

FOLDERS = (
    "usr/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib",
    "lib64",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
    "lib",
    "usr/local/nvidia/lib64",
)
"""Where distributions and driver containers put the driver's libraries, relative to the driver root."""

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
    looked = ", ".join(str(root / folder / LIBRARY) for folder in FOLDERS)
    asked = f"; the dynamic linker says: {linker_said}" if linker_said else ""
    raise HardwareUnavailable(f"no {LIBRARY} under driver root {root}; looked for {looked}{asked}", hint=_HINT)


def find_library(root: Path) -> Path | None:
    """What a process that starts now would load under ``root``, links resolved; None when there is none."""
    for folder in FOLDERS:
        try:
            found = resolve_inside(root, f"/{folder}/{LIBRARY}")
            if found.is_file():
                return found
        except OSError as error:  # a circle of links, a mount that is gone
            logger.debug("cannot look for %s in %s: %s", LIBRARY, root / folder, error)
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
