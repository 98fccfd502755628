"""Where a driver's libraries may be below a driver root: one list, for loading NVML and for CDI files.

Were there two, a node could offer GPUs that NVML shows and that no container could be given. The fixed folders come
first; then those that the root's own dynamic linker is told of in ``/etc/ld.so.conf`` (Bottlerocket, and drivers in
``/opt``), read as ldconfig(8) does.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dra_driver.hardware.rooted import resolve_inside

logger = logging.getLogger(__name__)

LIBRARY_FOLDERS = (
    # internal/lookup/library.go of nvidia-container-toolkit; .../nvidia/current is where Debian keeps the driver.
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/usr/lib",
    "/lib64",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/lib",  # roots that hold nothing but a driver (GKE's older ones)
    "/usr/local/nvidia/lib64",  # what images of NVIDIA's device plugin era mount it at, and GKE
    "/usr/local/glibc/usr/lib",  # Talos
    "/run/opengl-driver/lib",  # NixOS: links into /nix/store
)

LINKER_FILES = ("/etc/ld.so.conf", "/etc/ld.so.conf.d")
"""A change of these may change the answer."""

_SEPARATORS = re.compile(r"[\s,:]+")
_DEEPEST_INCLUDE = 8


def library_folders(root: Path) -> tuple[str, ...]:
    """The folders to look into, best first, each as seen from ``root`` and named once. They need not exist."""
    return tuple(dict.fromkeys((*LIBRARY_FOLDERS, *_configured(root, LINKER_FILES[0], _DEEPEST_INCLUDE))))


def _configured(root: Path, file: str, depth: int) -> Iterator[str]:
    for line in _lines(root, file):
        first, *rest = line.split(maxsplit=1)
        if first == "include" and rest and depth:
            for included in _matching(root, os.path.join(os.path.dirname(file), rest[0])):
                yield from _configured(root, included, depth - 1)
        elif first != "hwcap":
            yield from (os.path.normpath(part) for part in _SEPARATORS.split(line) if part.startswith("/"))


def _lines(root: Path, file: str) -> Iterator[str]:
    try:
        text = resolve_inside(root, file).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        logger.info("cannot read %s of driver root %s: %s", file, root, error)
        return
    for line in text.splitlines():
        wanted = line.partition("#")[0].strip()
        if wanted:
            yield wanted


def _matching(root: Path, pattern: str) -> Iterator[str]:
    """Files of one folder, by name, as glob(3) sorts them. A pattern in the folder's name is not followed."""
    folder, name = os.path.split(pattern)
    try:
        names = sorted(os.listdir(resolve_inside(root, folder)))
    except OSError:
        return  # nothing to include is the usual case
    yield from (f"{folder}/{each}" for each in fnmatch.filter(names, name) if not each.startswith("."))
