"""What of the driver belongs into a container: libraries, programs, firmware and data, found under the driver root.

Responsible for knowing the driver's file names and for finding them; ``edits`` decides how they get into the container.
The lists are those of nvidia-container-toolkit (pkg/nvcdi: driver-nvml.go; internal/discover: graphics.go, ipc.go).
Everything is named by the driver version: ``lib*.so.<version>``. A root without a driver is an error that says what was
looked for and where, never an empty answer: an empty one would start containers without their libraries.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dra_driver.cdi.elf import read_soname
from dra_driver.cdi.roots import Root
from dra_driver.errors import HardwareUnavailable
from dra_driver.hardware.library_folders import LINKER_FILES, library_folders
from dra_driver.hardware.programs import PROGRAM_FOLDERS

logger = logging.getLogger(__name__)

BINARIES = (
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
    "nvidia-debugdump",
    "nvidia-imex",
    "nvidia-imex-ctl",
    "nvidia-persistenced",
    "nvidia-smi",
)
# Looked for in each of DATA_FOLDERS; mounted at the same place.
DATA_FOLDERS = ("/etc", "/usr/share")
DATA_FILES = (
    "egl/egl_external_platform.d/09_nvidia_wayland2.json",
    "egl/egl_external_platform.d/10_nvidia_wayland.json",
    "egl/egl_external_platform.d/15_nvidia_gbm.json",
    "egl/egl_external_platform.d/20_nvidia_xcb.json",
    "egl/egl_external_platform.d/20_nvidia_xlib.json",
    "glvnd/egl_vendor.d/10_nvidia.json",
    "nvidia/nvoptix.bin",
    "OpenCL/vendors/nvidia.icd",
    "X11/xorg.conf.d/10-nvidia.conf",
    "X11/xorg.conf.d/nvidia-drm-outputclass.conf",
)
# Mounted under /etc whatever folder they are in: Vulkan loaders in images always look there.
VULKAN_FILES = (
    "vulkan/icd.d/nvidia_icd.json",
    "vulkan/icd.d/nvidia_layers.json",
    "vulkan/implicit_layer.d/nvidia_layers.json",
)
FIRMWARE_FOLDERS = ("/lib/firmware", "/usr/lib/firmware")
# Not /tmp/nvidia-mps, which the toolkit has as well: CUDA connects to what it finds there, and what is left behind by a
# daemon that ended would make it fail. Containers that use MPS get the pipe of their own group.
SOCKETS = ("/run/nvidia-fabricmanager/socket", "/run/nvidia-persistenced/socket")

_VERSIONED = re.compile(r"(libcuda|libnvidia-ml)\.so\.(\d+\.\d+(?:\.\d+)?)")
# Driver libraries with a version of their own.
_OWN_VERSION = re.compile(
    r"libnvidia-egl-(?:gbm|wayland|wayland2|xcb|xlib)\.so\.\d+\.\d+(?:\.\d+)?|libnvidia-nvvm70\.so\.\d+|libnvidia-api\.so\.1"
)


@dataclass(frozen=True, slots=True)
class Library:
    """A library file and the links to it in its own folder, as (name, what the link says), direct links first."""

    folder: str
    name: str
    source: str  # the real file, inside the root
    links: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}"

    @property
    def stem(self) -> str:
        """``libcuda`` of ``libcuda.so.580.105.08``."""
        return self.name.partition(".so")[0]


@dataclass(frozen=True, slots=True)
class DriverFile:
    """A file or socket to mount at ``path``; ``source`` is the real one inside the root."""

    path: str
    source: str


@dataclass(frozen=True, slots=True)
class DriverFiles:
    """What was found of one driver version."""

    version: str
    library_folder: str  # where libcuda is
    libraries: tuple[Library, ...]  # sorted by path
    files: tuple[DriverFile, ...]  # programs, data, firmware
    sockets: tuple[DriverFile, ...]
    searched: tuple[str, ...]  # folders that were, or would have been, searched for libraries


def find_driver_files(
    root: Root, driver_version: str, loaded_from: Callable[[], str | None] = lambda: None
) -> DriverFiles:
    """The files of ``driver_version`` (NVML's form, ``580.105.08``) under ``root``.

    ``loaded_from``: the folder inside the root that NVML was loaded from, asked when none of the usual ones has the
    driver. Raises :class:`HardwareUnavailable`, retryable, when its libraries are not there (yet).
    """
    searched = library_folders(root.visible)
    folder, names = _library_folder(root, driver_version, searched, loaded_from)
    libraries = list(_libraries(root, folder, names, driver_version))
    vdpau = f"{folder}/vdpau"
    libraries += _libraries(root, vdpau, _names(root, vdpau), driver_version)
    files = [*_binaries(root), *_data(root), *_firmware(root, driver_version)]
    sockets = tuple(DriverFile(path, source) for path in SOCKETS if (source := root.resolve(path)))
    return DriverFiles(driver_version, folder, tuple(sorted(libraries, key=_by_path)), tuple(files), sockets, searched)


def watched_paths(files: DriverFiles) -> Iterator[str]:
    """Every path whose appearing, vanishing or change may change the answer: libraries found, folders looked into."""
    yield from files.searched
    yield from LINKER_FILES
    yield files.library_folder
    yield from PROGRAM_FOLDERS
    yield from SOCKETS
    yield f"{files.library_folder}/vdpau"
    for base in DATA_FOLDERS:
        yield from (f"{base}/{name}" for name in (*DATA_FILES, *VULKAN_FILES))
    yield from (f"{base}/nvidia/{files.version}" for base in FIRMWARE_FOLDERS)
    yield from (library.source for library in files.libraries)


def mounted_paths(files: DriverFiles) -> Iterator[str]:
    """Files whose appearing and vanishing may change the answer, and whose content does not."""
    yield from (file.source for file in files.files)


def _by_path(library: Library) -> str:
    return library.path


def _library_folder(
    root: Root, driver_version: str, searched: Sequence[str], loaded_from: Callable[[], str | None]
) -> tuple[str, Sequence[str]]:
    other_versions: dict[str, str] = {}
    broken: list[str] = []
    for folder in _folders(searched, loaded_from):
        names = _names(root, folder)
        for name in names:
            match = _VERSIONED.fullmatch(name)
            if match and match[2] != driver_version:
                other_versions[match[2]] = folder
            elif match and root.resolve(f"{folder}/{name}"):
                return folder, names
            elif match:
                broken.append(f"{folder}/{name}")
    place = f"{root.host} (seen here as {root.visible})"
    if broken:
        raise HardwareUnavailable(
            f"in driver root {place}, {' and '.join(sorted(broken))} lead by links to no file inside that root",
            hint="set the driver root to a folder that holds the files themselves, such as /",
        )
    if other_versions:
        found = ", ".join(f"{version} in {folder}" for version, folder in sorted(other_versions.items()))
        raise HardwareUnavailable(
            f"the running NVIDIA driver is {driver_version}, but driver root {place} has libraries of {found}",
            hint="a driver update is probably under way: wait for it to end, or reload the kernel modules",
        )
    raise HardwareUnavailable(
        f"no NVIDIA driver libraries in driver root {place}: looked for libcuda.so.{driver_version} and "
        f"libnvidia-ml.so.{driver_version} in {', '.join(searched)}",
        hint="wait for the driver to be installed, or set the driver root to where it is",
    )


def _folders(searched: Sequence[str], loaded_from: Callable[[], str | None]) -> Iterator[str]:
    yield from searched
    folder = loaded_from()
    if folder is not None and folder not in searched:
        yield folder


def _names(root: Root, folder: str) -> Sequence[str]:
    try:
        return os.listdir(root.real_path(folder))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:  # a circle of links; or the mount of a driver container's root has gone stale
        path = root.visible_path(folder)
        raise HardwareUnavailable(
            f"cannot look for driver files in {path}: {error.strerror or error}",
            hint="mend the folder on the host; if it is a mount of a driver container, start that one anew",
        ) from error


def _libraries(root: Root, folder: str, names: Sequence[str], driver_version: str) -> Iterator[Library]:
    suffix = f".so.{driver_version}"
    by_stem: dict[str, list[str]] = {}
    for name in names:
        stem, dot_so, _ = name.partition(".so")
        if dot_so:
            by_stem.setdefault(stem, []).append(name)
    for name in sorted(names):
        if not name.endswith(suffix) and not _OWN_VERSION.fullmatch(name):
            continue
        source = root.resolve(f"{folder}/{name}")
        if source is None:
            logger.warning("driver library %s is a link that leads to no file in %s", f"{folder}/{name}", root.host)
            continue
        neighbours = by_stem[name.partition(".so")[0]]
        yield Library(folder, name, source, _links(root, folder, name, source, neighbours))


def _links(root: Root, folder: str, name: str, source: str, neighbours: Sequence[str]) -> tuple[tuple[str, str], ...]:
    targets: dict[str, str] = {}
    real_folder = root.real_path(folder)
    for neighbour in neighbours:
        try:
            target = os.readlink(real_folder / neighbour)
        except OSError:
            continue  # EINVAL: a file, not a link
        targets[neighbour] = os.path.basename(target)
    soname = _soname(root, source)
    if soname and soname != name and soname not in targets:
        targets[soname] = name
    return tuple(sorted(_chain(targets, name), key=lambda link: (link[1] != name, link[0])))


def _chain(targets: Mapping[str, str], name: str) -> Iterator[tuple[str, str]]:
    """The links that lead to ``name``, through other links or not."""
    for link, target in targets.items():
        seen, at = {link}, target
        while at != name and at in targets and at not in seen:
            seen.add(at)
            at = targets[at]
        if at == name and link != name:
            yield link, target


def _soname(root: Root, source: str) -> str | None:
    try:
        return read_soname(root.visible_path(source))
    except OSError as error:
        logger.warning("cannot read driver library %s: %s", source, error)
        return None


def _binaries(root: Root) -> Iterator[DriverFile]:
    for name in BINARIES:
        for folder in PROGRAM_FOLDERS:
            source = root.resolve(f"{folder}/{name}")
            if source is not None:
                yield DriverFile(f"{folder}/{name}", source)
                break


def _data(root: Root) -> Iterator[DriverFile]:
    for name in DATA_FILES:
        for folder in DATA_FOLDERS:
            source = root.resolve(f"{folder}/{name}")
            if source is not None:
                yield DriverFile(f"{folder}/{name}", source)
                break
    for name in VULKAN_FILES:
        for folder in DATA_FOLDERS:
            source = root.resolve(f"{folder}/{name}")
            if source is not None:
                yield DriverFile(f"/etc/{name}", source)
                break


def _firmware(root: Root, driver_version: str) -> Iterator[DriverFile]:
    for base in FIRMWARE_FOLDERS:
        folder = f"{base}/nvidia/{driver_version}"
        names = sorted(name for name in _names(root, folder) if name.startswith("gsp") and name.endswith(".bin"))
        if names:
            for name in names:
                yield DriverFile(f"{folder}/{name}", root.resolve(f"{folder}/{name}") or f"{folder}/{name}")
            return
