"""A simulated node with its MPS programs; what a test starts there is ended with it, by process id."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from dra_driver.simulation.hardware import SimulatedState, StateFile, create_state, host_root
from dra_driver.simulation.hardware.mps import presence, scripts
from tests.run_guard import mark

DEADLINE = 20.0

Answer = tuple[int, str, str]


def wait_until(true: Callable[[], object], what: str) -> None:
    deadline, pause = time.monotonic() + DEADLINE, 0.01
    while not true():
        assert time.monotonic() < deadline, f"not in {DEADLINE} s: {what}"
        time.sleep(pause)
        pause = min(1.5 * pause, 0.05)


def is_running(pid: int) -> bool:
    """Whether it runs; what waits for its parent has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def has_open(pid: int, path: Path) -> bool:
    with contextlib.suppress(OSError):  # it has ended
        return any(os.readlink(each.path) == str(path) for each in os.scandir(f"/proc/{pid}/fd"))
    return False


class MpsNode:
    """A node, one pipe directory on it, and the programs as a user calls them."""

    def __init__(self, folder: Path, machine: str = "h100-sxm5-80gb", driver: str | None = None) -> None:
        self.folder = folder
        self.state_file = folder / "gpus.json"
        self.root = folder / "host"
        self.pipe = folder / "pipe"
        self.logs = folder / "log"
        create_state(machine, self.state_file, seed="node", driver=driver)
        host_root.build(self.root, self.state_file)
        self.clients: list[subprocess.Popen[str]] = []
        self.shell: list[str] = []
        self.path = os.environ["PATH"]

    @property
    def state(self) -> SimulatedState:
        return StateFile(self.state_file).read()

    @property
    def uuids(self) -> list[str]:
        return [gpu.uuid for gpu in self.state.gpus]

    def environment(self, **more: str) -> dict[str, str]:
        paths = {"CUDA_MPS_PIPE_DIRECTORY": str(self.pipe), "CUDA_MPS_LOG_DIRECTORY": str(self.logs)}
        return {"PATH": self.path, **paths, **mark(), **more}

    def control(self, *options: str, text: str = "", **environment: str) -> Answer:
        done = subprocess.run(
            [*self.shell, str(self.root / scripts.CONTROL_PATH), *options],
            input=text,
            capture_output=True,
            text=True,
            env=self.environment(**environment),
            timeout=DEADLINE,
        )
        return done.returncode, done.stdout, done.stderr

    def start(self, *options: str, devices: str | None = None, **environment: str) -> int:
        """A daemon; its process id."""
        visible = {} if devices is None else {"CUDA_VISIBLE_DEVICES": devices}
        assert self.control("-d", *options, **visible, **environment) == (0, "", "")
        return self.daemon()

    def daemon(self) -> int:
        return int((self.pipe / "nvidia-cuda-mps-control.pid").read_text())

    def say(self, *lines: str) -> list[str]:
        code, out, err = self.control(text="".join(f"{line}\n" for line in lines))
        assert (code, err) == (0, "")
        return out.splitlines()

    def run_client(self, *options: str, **environment: str) -> Answer:
        done = subprocess.run(
            self._client(*options),
            capture_output=True,
            text=True,
            env=self.environment(**environment),
            timeout=DEADLINE,
        )
        return done.returncode, done.stdout, done.stderr

    def start_client(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        """One that counts into a file of its own until it is ended; not waited for."""
        client = subprocess.Popen(
            self._client("--interval", "0.1", *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(**environment),
        )
        self.clients.append(client)
        return client

    def counting_client(self, **environment: str) -> tuple[subprocess.Popen[str], Path]:
        """One that has begun to count, and its file."""
        file = self.folder / f"count-{len(self.clients)}"
        client = self.start_client("--count", str(file), **environment)
        wait_until(lambda: (file.exists() and file.read_text()) or client.poll() is not None, "a client counts")
        assert client.poll() is None, client.communicate()
        return client, file

    def used_by(self, uuid: str) -> list[tuple[int, int | None]]:
        found = [(each.pid, each.mps_server) for gpu in self.state.gpus for each in gpu.clients if each.uuid == uuid]
        return sorted(found, key=str)

    def holders_of_the_lock(self) -> list[int]:
        """The daemon, also one that is still starting: who has control_lock open."""
        lock = self.pipe / "control_lock"
        return [pid for pid in processes() if lock.exists() and has_open(pid, lock)]

    def holders(self) -> list[str]:
        """Whose files lie beside the state: processes that have taken devices, and those that left without a word."""
        folder = self.state_file.with_name(f"{self.state_file.name}.users")
        return os.listdir(folder) if folder.exists() else []

    def close(self) -> None:
        for client in self.clients:
            client.kill()
        for pid in self.holders_of_the_lock():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.holders_of_the_lock(), "the daemon ends")
        for client in self.clients:
            client.communicate()
        left = self.holders()
        wait_until(lambda: len(presence.ended(self.state_file, left)) == len(left), "servers and clients end")

    def _client(self, *options: str) -> Sequence[str]:
        return [*self.shell, str(self.root / scripts.CLIENT_PATH), *options]


def facts(out: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in out.splitlines())


def shells() -> list[list[str]]:
    """The shells of this machine that images have."""
    found = [[path] for name in ("dash", "bash") if (path := shutil.which(name))]
    busybox = shutil.which("busybox")
    return found + ([[busybox, "sh"]] if busybox else [])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[MpsNode]:
    made = MpsNode(tmp_path)
    yield made
    made.close()
