"""A Docker daemon of our own: its start, its stop, and what is left of it after a kill -9.

It runs in network, mount and PID namespaces of its own (daemon_init.py is process 1 there). So one signal to one
process ends everything that it ever started, and the mounts and interfaces go with it; what remains to be removed are
cgroups and files.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from e2e.clusters import packages
from e2e.clusters.interface import ClusterError
from e2e.clusters.kind.engine import daemon_engine
from e2e.clusters.processes import Process, start_detached
from e2e.clusters.runner import Runner

_CGROUPS = Path("/sys/fs/cgroup")
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_LONGEST_SOCKET = 100  # sun_path has 108 bytes


@dataclass(frozen=True, slots=True)
class Daemon:
    """The daemon whose files are below ``folder``; ``name`` is its cgroup."""

    folder: Path
    name: str

    @property
    def socket(self) -> Path:
        return self.folder / "docker.sock"

    @property
    def log(self) -> Path:
        return self.folder / "dockerd.log"

    @property
    def data(self) -> Path:
        return self.folder / "docker"

    def start(self, record: Callable[[Process], None]) -> Runner:
        """Start it and wait until it answers. ``record`` is called with its process before it does anything."""
        if len(str(self.socket)) > _LONGEST_SOCKET:
            raise ClusterError(f"{self.socket} is too long for a socket: set GPU_DRA_CACHE to a shorter folder")
        self._write_configuration()
        command = [_program("unshare"), "--net", "--mount", "--propagation", "private", "--pid", "--fork"]
        command += ["--kill-child=KILL", "--mount-proc", sys.executable, "-m", "e2e.clusters.kind.daemon_init"]
        process = start_detached([*command, str(self.folder)], log=self.log, record=record)
        engine = self.engine(process)
        deadline = time.monotonic() + _START_SECONDS
        while not (self.socket.exists() and engine.succeeds(["docker", "version"])):
            if not process.alive or time.monotonic() > deadline:
                raise ClusterError(f"the Docker daemon did not start; {self.log} ends with:\n{_end_of(self.log)}")
            time.sleep(0.05)
        return engine

    def engine(self, process: Process) -> Runner:
        return daemon_engine(process.pid, self.socket, self.folder / "client")

    def stop(self, process: Process | None) -> None:
        """End it, whatever state it is in, and remove its cgroups. Images stay."""
        if process is not None and process.alive:
            for child in process.children():
                child.end(signal.SIGTERM, timeout=_STOP_SECONDS)
            if not process.end(signal.SIGKILL, timeout=_STOP_SECONDS):
                raise ClusterError(f"process {process.pid} (the Docker daemon's) does not end")
        remove_cgroups(self.name)
        self.socket.unlink(missing_ok=True)

    def forget_containers(self) -> None:
        """After a daemon that could not remove its containers itself: a new one would start them again. The images go
        with them."""
        self._mark.unlink(missing_ok=True)
        shutil.rmtree(self.data, ignore_errors=True)

    @property
    def holds(self) -> str | None:
        """The image that its data was unpacked with."""
        return self._mark.read_text() if self._mark.exists() and self.data.is_dir() else None

    def fill(self, archive: Path, reference: str) -> None:
        """Replace its data by the archive of :meth:`pack`."""
        self.forget_containers()
        self.data.mkdir()
        with subprocess.Popen([_program("zstd"), "-dcq", archive], stdout=subprocess.PIPE) as content:
            tar = ["tar", "-C", str(self.data), "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xf", "-"]
            result = subprocess.run(tar, stdin=content.stdout, capture_output=True, text=True, check=False)
        if result.returncode != 0 or content.returncode != 0:
            raise ClusterError(f"{archive} is damaged; remove it and run again: {result.stderr[-500:]}")
        self._mark.write_text(reference)

    def pack(self, archive: Path, reference: str) -> None:
        """Keep its data, which has the image ``reference``; it must not be running."""
        partial = archive.with_name(f".{archive.name}.part")
        tar = ["tar", "-C", str(self.data), "--numeric-owner", "--xattrs", "--xattrs-include=*", "-cf", "-", "."]
        with subprocess.Popen(tar, stdout=subprocess.PIPE) as content:
            zstd = [_program("zstd"), "-q", "-3", "-T0", "-f", "-o", str(partial)]
            result = subprocess.run(zstd, stdin=content.stdout, capture_output=True, text=True, check=False)
        if result.returncode != 0 or content.returncode != 0:
            raise ClusterError(f"packing {self.data} failed: {result.stderr[-500:]}")
        partial.rename(archive)
        self._mark.write_text(reference)

    @property
    def _mark(self) -> Path:
        return self.folder / "docker-image"

    @property
    def has_containers(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return any((self.data / "containers").iterdir())
        return False

    def _write_configuration(self) -> None:
        (self.folder / "client").mkdir(parents=True, exist_ok=True)
        # Its own copy: Docker runs it by path, and a checkout may lie where nothing is executable.
        runtime = self.folder / "oci-runtime"
        shutil.copy(Path(__file__).with_name("oci_runtime.py"), runtime)
        runtime.chmod(0o755)
        configuration = {
            "data-root": str(self.data),
            "hosts": [f"unix://{self.socket}"],
            "storage-driver": "overlay2",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],  # the machine's systemd, if it has one, does not know us
            "cgroup-parent": f"/{self.name}",
            "runtimes": {"gpu-dra": {"path": str(runtime)}},
            "default-runtime": "gpu-dra",
        }
        (self.folder / "daemon.json").write_text(json.dumps(configuration, indent=2))


def remove_cgroups(name: str, *, timeout: float = 20.0) -> None:
    """Remove every cgroup named ``name`` at the top of a hierarchy. What is in them must be ending."""
    deadline = time.monotonic() + timeout
    while left := [path for path in (_CGROUPS / name, *_CGROUPS.glob(f"*/{name}")) if path.is_dir()]:
        for top in left:
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):  # busy until its last process is gone, then the next round gets it
                    Path(folder).rmdir()
        if time.monotonic() > deadline:
            raise ClusterError(f"cgroups are still in use: {', '.join(map(str, left))}")
        time.sleep(0.02)


def _program(name: str) -> str:
    path = packages.find_program(name)
    if path is None:
        raise ClusterError(f"{name} is not installed")
    return path


def _end_of(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:] if path.exists() else ""
