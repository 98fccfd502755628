"""Where MPS programs are and what they see around them. Looks at the driver's files, and changes nothing.

A daemon must outlive the supervisor's container. So where there is a host around us (hostPID) it runs in the host's
namespaces and from the host's files: of the container it keeps nothing. A full driver root (one with a dynamic linker,
such as a driver container's) becomes the program's root, as NVIDIA's driver does it (its
templates/mps-control-daemon.tmpl.yaml); one that holds only the driver (GKE) gives its libraries by LD_LIBRARY_PATH.
Simulated programs need our Python, and so run where we do.

The daemon binds unix sockets in its pipe directory, whose paths the kernel limits (unix(7)), and in a root of its own
it does not see the group's folder at all. In both cases the folder appears under a short name, on a tmpfs over a folder
that nobody needs there, and that nobody else sees. The host's ``/tmp/nvidia-mps`` plays no part anywhere: pipe and log
directory are always given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dra_driver.cdi.roots import Root
from dra_driver.hardware.library_folders import library_folders
from dra_driver.hardware.programs import PROGRAM_FOLDERS, find_program
from dra_driver.mps.errors import GroupFailed
from dra_driver.mps.group import LEGACY, NAMED, SERVER, GroupFolders

PIPE_DIRECTORY = "CUDA_MPS_PIPE_DIRECTORY"
CONTROL = "nvidia-cuda-mps-control"
MARK = "GPU_DRA_MPS_GROUP"
"""An environment variable of all that runs for a group, with the group's folder."""

_NOBODYS = Path("/nonexistent/gpu-dra-mps")  # no daemon has its pipe directory there

HOST_NAMESPACES = Path("/proc/1/ns")  # of the host's init, with hostPID
# Not pid: a process keeps its own, and with hostPID it is the host's already.
_ENTERED = ("cgroup", "ipc", "uts", "net", "mnt")

_SHM = "/dev/shm"  # noqa: S108 - the kernel's name for it
_NAME = "gpu-dra-mps"
_SHORT = ("/mnt", "/media", "/tmp")  # noqa: S108 - the first that the root has gets a tmpfs of its own
_SUN_PATH = 107  # without its final NUL
# The longest name of a socket in a group's folder: the daemon's, or that of a share whose name has 64 characters.
_LONGEST = {LEGACY: "/pipe/control_privileged", NAMED: f"/pipe/{SERVER}/{'x' * 64}/control"}
_HOST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LINKERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")  # the x86-64 and the aarch64 ABI's names
# What would mislead the daemon, were it inherited: CUDA_VISIBLE_DEVICES above all, and libraries of our own image.
_NOT_INHERITED = ("CUDA_", "LD_", "NVIDIA_")


@dataclass(frozen=True, slots=True)
class Bind:
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """``namespaces``: files to enter, in order. Then, in a mount namespace of its own, a tmpfs on each of ``scratch``,
    ``folders`` made there, and ``binds``; none of that where there are none. Then ``root`` is "/"."""

    namespaces: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    binds: tuple[Bind, ...] = ()
    root: str = "/"


@dataclass(frozen=True, slots=True)
class Program:
    """How to run something: ``path`` as it is inside ``surroundings``."""

    path: str
    environment: Mapping[str, str]
    surroundings: Surroundings


class Home:
    """Where the programs of this node's driver run. ``driver``: its root, as we and as the host see it."""

    def __init__(self, driver: Root, *, namespaces: Path | None, environment: Mapping[str, str] | None = None) -> None:
        """``namespaces``: of the host, if they are not ours; None to run where we do."""
        self._driver = driver
        self._namespaces = namespaces
        self._inherited = dict(os.environ if environment is None else environment)

    def daemon(self, folders: GroupFolders, devices: tuple[str, ...], protocol: int = LEGACY) -> Program:
        """The group's control daemon, whose /dev/shm is the group's. Raises GroupFailed when it is not installed."""
        program = self.client(folders, self.control(), protocol)
        shm = Bind(str(folders.shm), f"{program.surroundings.root.rstrip('/')}{_SHM}")
        around = replace(program.surroundings, binds=(*program.surroundings.binds, shm))
        environment = {**program.environment, "CUDA_VISIBLE_DEVICES": ",".join(devices)}
        return Program(program.path, environment, around)

    def alone(self, inner: str) -> Program:
        """A program of the driver root, for no group: no daemon's directory is given to it."""
        driver = "" if self._root() == "/" else self._root()
        environment = self._environment(driver, inner)
        root = driver if driver and self._is_full() else "/"
        if root == "/" and driver:
            found = (f"{driver}{folder}" for folder in library_folders(self._driver.visible) if self._has(folder))
            environment["LD_LIBRARY_PATH"] = ":".join(found)
        path = inner if root == driver else f"{driver}{inner}"
        return Program(path, {**environment, **_directories(_NOBODYS)}, Surroundings(self._entered(), root=root))

    def client(self, folders: GroupFolders, inner: str, protocol: int = LEGACY) -> Program:
        """A program of the driver root that speaks to the group's daemon or its servers."""
        program = self.alone(inner)
        root = program.surroundings.root
        environment = {**program.environment, MARK: str(folders.root)}
        if root == "/" and len(bytes(folders.root)) + len(_LONGEST[protocol]) <= _SUN_PATH:
            return Program(program.path, {**environment, **_directories(folders.root)}, Surroundings(self._entered()))
        short = f"{self._unneeded(root, folders)}/{_NAME}"
        outside = f"{root.rstrip('/')}{short}"
        around = Surroundings(
            self._entered(),
            scratch=(os.path.dirname(outside),),
            folders=(outside,),
            binds=(Bind(str(folders.root), outside),),
            root=root,
        )
        return Program(program.path, {**environment, **_directories(Path(short))}, around)

    def control(self) -> str:
        """The control program, as its root has it. Looked for each time: a driver may be installed later."""
        found = find_program(self._driver.visible, CONTROL)
        if found is None:
            looked = ", ".join(f"{folder}/{CONTROL}" for folder in PROGRAM_FOLDERS)
            raise GroupFailed(
                f"no {CONTROL} below driver root {self._driver.host}; looked for {looked}",
                hint="install the driver with its MPS programs (Debian: nvidia-cuda-mps), or set the driver root",
            )
        return f"/{found.relative_to(self._driver.visible)}"

    def control_stamp(self) -> tuple[object, ...]:
        """Another one when the control program is another. Raises GroupFailed, OSError."""
        file = self._driver.visible / self.control().lstrip("/")
        found = file.stat()
        return file, found.st_ino, found.st_mtime_ns, found.st_size

    def _environment(self, driver: str, inner: str) -> dict[str, str]:
        """The host's programs get nothing of our container. The daemon looks for its server's program in PATH."""
        beside = f"{driver}{os.path.dirname(inner)}"
        if self._namespaces is not None:
            return {"PATH": f"{_HOST_PATH}:{beside}"}
        inherited = {name: value for name, value in self._inherited.items() if not name.startswith(_NOT_INHERITED)}
        return {**inherited, "PATH": f"{inherited.get('PATH', _HOST_PATH)}:{beside}"}

    def _unneeded(self, root: str, folders: GroupFolders) -> str:
        """A folder of ``root`` that may be hidden from the program."""
        host = Path("/") if self._namespaces is None else self._namespaces.parent / "root"
        seen = host if root == "/" else self._driver.visible
        needed = [Path(os.path.realpath(folders.root)), Path(self._root())]
        for each in _SHORT:
            if (seen / each[1:]).is_dir() and not any(path.is_relative_to(each) for path in needed):
                return each
        raise GroupFailed(
            f"none of {', '.join(_SHORT)} can be hidden from the MPS daemon in {self._driver.host}",
            hint=f"make one of them, or give the kubelet a root folder so short that {folders.pipe} has "
            f"{_SUN_PATH - len(_LONGEST[LEGACY]) + len('/pipe')} bytes at most",
        )

    def _root(self) -> str:
        """The driver root, as it is in the namespaces where its programs run."""
        return self._driver.host if self._namespaces is not None else str(self._driver.visible)

    def _entered(self) -> tuple[str, ...]:
        return tuple(f"{self._namespaces}/{kind}" for kind in _ENTERED) if self._namespaces is not None else ()

    def _is_full(self) -> bool:
        return any(self._has(linker) for linker in _LINKERS)

    def _has(self, inner: str) -> bool:
        return self._driver.resolve(inner) is not None


def host_namespaces(folder: Path = HOST_NAMESPACES) -> Path | None:
    """Those of process 1, where it lives in another mount namespace than we do: with hostPID, in a container."""
    try:
        same = os.readlink(folder / "mnt") == os.readlink("/proc/self/ns/mnt")
    except OSError:  # without the right to look, there is no way in
        return None
    return None if same else folder


def _directories(folder: Path) -> dict[str, str]:
    inside = GroupFolders(folder)
    return {PIPE_DIRECTORY: str(inside.pipe), "CUDA_MPS_LOG_DIRECTORY": str(inside.log)}
