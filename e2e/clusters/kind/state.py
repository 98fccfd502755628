"""What is remembered of a cluster between two commands: one JSON file, written before what it tells of happens."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from e2e.clusters import programs
from e2e.clusters.interface import ClusterError
from e2e.clusters.processes import Process

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")  # kind's own rule, and short enough for a node's host name


@dataclass(frozen=True, slots=True)
class State:
    """A cluster that is up or was being brought up. Processes are those of this repository, by their names."""

    own_daemon: bool
    kubernetes: str = ""
    node_image: str = ""
    machine: str | None = None
    image: str | None = None  # the driver's, as loaded
    nodes: tuple[str, ...] = ()
    ready: bool = False
    processes: dict[str, Process] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Everything of the cluster ``name`` that is on disk."""

    name: str

    @classmethod
    def of(cls, name: str) -> StateFolder:
        if not _NAME.fullmatch(name):
            raise ClusterError(f"{name!r} is no name for a cluster: lower-case letters, digits and '-', 40 at most")
        return cls(name)

    @property
    def path(self) -> Path:
        return programs.cache_folder() / "kind" / self.name

    @property
    def kubeconfig(self) -> Path:
        return self.path / "kubeconfig"

    @property
    def _file(self) -> Path:
        return self.path / "state.json"

    def read(self) -> State | None:
        try:
            document: dict[str, Any] = json.loads(self._file.read_text())
        except FileNotFoundError:
            return None
        processes = {name: Process(**value) for name, value in document.pop("processes").items()}
        return State(**{**document, "nodes": tuple(document["nodes"]), "processes": processes})

    def write(self, state: State) -> None:
        partial = self.path / ".state.json.part"
        partial.write_text(json.dumps(asdict(state), indent=2))
        partial.replace(self._file)

    def record(self, name: str, process: Process) -> None:
        """Add a process to the state on disk."""
        state = self.read()
        assert state is not None, "the state is written before a process is started"
        self.write(replace(state, processes={**state.processes, name: process}))

    def forget(self) -> None:
        """The cluster is gone: nothing of it is left but logs and the daemon's images."""
        for path in (self._file, self.kubeconfig, self.path / "kind.yaml", self.path / "api-port"):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self, patience: float = 0.0) -> Iterator[None]:
        """One command at a time changes a cluster; waits ``patience`` seconds for another one to end."""
        deadline = time.monotonic() + patience
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as lock:
            while not _locks(lock):
                if time.monotonic() >= deadline:
                    raise ClusterError(
                        f"another command is changing the cluster {self.name}; wait for it, or give --name"
                    )
                time.sleep(0.1)
            yield


def _locks(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
