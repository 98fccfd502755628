"""One machine of the cluster, seen from outside: made, asked and removed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.clusters.interface import ClusterError
from e2e.clusters.local import cgroups
from e2e.clusters.processes import Process
from e2e.clusters.runner import Runner

_START_SECONDS = 20.0
_LONGEST_SOCKET_PATH = 107  # sun_path without its final NUL
_NAMESPACES = ("mount", "uts", "ipc", "net", "pid", "cgroup")
_PACKAGES = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Machine:
    """``cgroup`` is the name of its cgroup subtree, ``folder`` holds everything that is its own."""

    name: str
    folder: Path
    cgroup: str
    logs: Path

    def boot(self, binds: Mapping[str, Path]) -> None:
        """Make the namespaces and start init in them. ``binds``: paths inside and the folders they lead to."""
        if self.pid() is not None:
            raise ClusterError(f"machine {self.name} is up already")
        for folder in (self.folder, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        if len(os.fsencode(self._socket)) > _LONGEST_SOCKET_PATH:
            raise ClusterError(f"{self._socket} is too long for a socket; choose a shorter GPU_DRA_CACHE")
        self._socket.unlink(missing_ok=True)
        spec = {
            "hostname": self.name,
            "socket": str(self._socket),
            "logs": str(self.logs),
            "scratch": str(self.folder / "scratch"),
            "binds": {path: str(folder) for path, folder in binds.items()},
        }
        (self.folder / "init.json").write_text(json.dumps(spec))
        outer = self._unshare()
        if known := Process.of(outer.pid):
            known.write(self.folder / "outer.pid")
        self._wait_for_init(outer)

    def pid(self) -> int | None:
        """Init's pid as seen from here; None when the machine is down."""
        init = Process.read(self.folder / "init.pid")
        return init.pid if init is not None and init.alive else None

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._ask({"do": "start", "name": name, "command": list(command), "environment": dict(environment or {})})

    def stop(self, name: str, *, number: int = signal.SIGTERM, timeout: float = 10.0) -> None:
        self._ask({"do": "stop", "name": name, "signal": int(number), "timeout": timeout}, timeout + 10)

    def running(self) -> dict[str, int]:
        """Names of the components that run, with their pids inside."""
        found: dict[str, int] = self._ask({"do": "status"})["running"]
        return found

    def run(self, command: Sequence[str], *, timeout: float = 60.0, namespaces: Sequence[str] = _NAMESPACES) -> str:
        """Run ``command`` inside; returns its output. Raises ClusterError with both outputs when it fails."""
        return Runner(tuple(self.enter_command(namespaces)), where=self.name).run(command, timeout=timeout)

    def enter_command(self, namespaces: Sequence[str] = _NAMESPACES) -> list[str]:
        """What to put before a command so that it runs inside."""
        pid = self.pid()
        if pid is None:
            raise ClusterError(f"machine {self.name} is down")
        return ["nsenter", "--target", str(pid), *(f"--{namespace}" for namespace in namespaces)]

    def halt(self) -> list[str]:
        """End every process of this machine, and with them its namespaces; its folder stays. Returns what is left."""
        for name in ("init.pid", "outer.pid"):
            if known := Process.read(self.folder / name):
                known.end(signal.SIGKILL, timeout=10.0)
        # Init's death ended all others; what was started by nsenter is in the cgroup as well.
        for pid in cgroups.processes(self.cgroup):
            if known := Process.of(pid):
                known.end(signal.SIGKILL, timeout=5.0)
        return [f"cgroup {folder}" for folder in cgroups.remove(self.cgroup)]

    def remove(self) -> list[str]:
        """End everything of this machine; returns one line for each thing that is left."""
        left = self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)
        return [*left, *([f"folder {self.folder}"] if self.folder.exists() else [])]

    @property
    def _socket(self) -> Path:
        return self.folder / "init.sock"

    def _unshare(self) -> subprocess.Popen[bytes]:
        command = [
            "unshare", "--cgroup", "--mount", "--uts", "--ipc", "--net", "--pid",
            "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
            sys.executable, "-m", "e2e.clusters.local.init", str(self.folder / "init.json"),
        ]  # fmt: skip
        entry = [sys.executable, "-m", "e2e.clusters.local.enter", self.cgroup, *command]
        with (self.logs / "init.log").open("ab") as log:
            return subprocess.Popen(
                entry,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(_PACKAGES)},
            )

    def _wait_for_init(self, outer: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        known = Process(outer.pid, started=0)  # only its children are asked for
        while time.monotonic() < deadline and outer.poll() is None:
            # `unshare` replaces the python that entered the cgroups, and forks init; the socket says that it is that.
            children = known.children()
            if children and self._socket.exists():
                children[0].write(self.folder / "init.pid")
                if self._answers():
                    return
            time.sleep(0.02)
        tail = (self.logs / "init.log").read_text(errors="replace").splitlines()[-5:]
        raise ClusterError(f"machine {self.name} did not come up: {' / '.join(tail) or 'no output'}")

    def _answers(self) -> bool:
        try:
            self._ask({"do": "status"}, 2.0)
        except ClusterError:
            return False
        return True

    def _ask(self, request: Mapping[str, Any], timeout: float = 10.0) -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(timeout)
                client.connect(str(self._socket))
                with client.makefile("rw") as stream:
                    stream.write(json.dumps(request) + "\n")
                    stream.flush()
                    line = stream.readline()
        except OSError as error:
            raise ClusterError(f"machine {self.name} does not answer: {error}") from error
        answer: dict[str, Any] = json.loads(line) if line else {"error": "it closed the connection"}
        if "error" in answer:
            raise ClusterError(f"machine {self.name}: {request['do']} {request.get('name', '')}: {answer['error']}")
        return answer
