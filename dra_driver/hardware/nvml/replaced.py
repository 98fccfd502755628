"""Was the driver replaced under this process? Decided from files and versions, without a call to NVML.

A library that was loaded stays mapped for the life of the process: ctypes never closes one, and a second libnvidia-ml
beside the first would share its global symbols. So after the kernel module was replaced NVML answers "driver/library
version mismatch" for ever, and the only sure way to the new library is a new process. It ends for that only where a new
one will find another library than this one has, of the kernel module's version: while a driver is half installed it
waits, and no driver makes it end twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dra_driver.errors import HardwareError
from dra_driver.hardware.nvml.errors import DriverReplaced, VersionMismatch

_VERSION = re.compile(r"\.so\.(\d+\.\d+(?:\.\d+)?)$")


@dataclass(frozen=True, slots=True)
class LibraryFile:
    """A driver library as a file. ``version`` is the driver's, as the name says it; "" when it does not."""

    path: Path
    identity: tuple[int, int]  # device and inode: the same file, by whatever path
    version: str

    def is_other_than(self, loaded: LibraryFile) -> bool:
        return (self.identity, self.version) != (loaded.identity, loaded.version)


def library_file(path: Path | None) -> LibraryFile | None:
    """The file at ``path``, links resolved already; None when there is none (any more)."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None  # removed, or on a mount that is gone
    match = _VERSION.search(path.name)
    return LibraryFile(path, (found.st_dev, found.st_ino), match[1] if match else "")


def explain(
    error: HardwareError, loaded: LibraryFile | None, there: Sequence[LibraryFile], module: str | None
) -> HardwareError:
    """What is to be said in the place of ``error``, which NVML gave.

    ``loaded`` is what this process has, ``there`` what a new one would find, ``module`` the kernel module's version.
    """
    mismatch = isinstance(error, VersionMismatch)
    # Other codes come from a module that was taken away too; without the word of NVML both versions must be known.
    differs = mismatch or bool(loaded and loaded.version and module and loaded.version != module)
    if loaded is None or not differs:
        return error
    for file in there:
        fits = file.version == module if file.version and module else mismatch
        if fits and file.is_other_than(loaded):
            return DriverReplaced(
                f"the NVIDIA driver was replaced: this process has the library of {loaded.version or loaded.path}, "
                f"the kernel module is {module or 'another one'}, and {file.path} is a new library",
                hint="the process ends, and loads that library when it starts again; prepared claims stay",
            )
    return _half_installed(error, loaded, there, module) if mismatch and module else error


def _half_installed(
    error: HardwareError, loaded: LibraryFile, there: Sequence[LibraryFile], module: str
) -> HardwareError:
    if not there:
        return VersionMismatch(
            f"{error.message}: the kernel module is {module}, and the library of this process is gone ({loaded.path})",
            hint="wait for the driver's installation to end; the new library is taken without help",
        )
    file = there[0]
    if not file.version or file.version == module:
        return error  # nothing is known beyond what NVML says
    if _numbers(file.version) > _numbers(module):
        hint = "end the driver's update: reload the nvidia kernel modules once nothing uses them, or reboot the node"
    else:
        hint = f"end the driver's update: install the libraries of {module}; they are taken without help"
    return VersionMismatch(f"{error.message}: {file.path} is {file.version}, the kernel module {module}", hint=hint)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)
