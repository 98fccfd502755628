"""A simulated node with a supervisor on it, as a process of its own or in this one; and everything that it may leave."""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from api.driver_config import add_arguments, load
from api.driver_spec import DriverConfiguration
from dra_driver.hardware.nvml.compute_mode import ComputeMode
from dra_driver.mps.client import SupervisorClient
from dra_driver.mps.errors import MpsError
from dra_driver.mps.group import (
    NAMED,
    GroupFolders,
    GroupState,
    GroupStatus,
    MpsGroup,
    MpsShare,
    folders_of,
    groups_folder,
    socket_of,
)
from dra_driver.processes import Process
from dra_driver.simulation.hardware import StateFile, create_state, host_root
from kubelet_plugin.mps_supervisor.app import SupervisorApp
from kubelet_plugin.mps_supervisor.cgroups import PARENT, Cgroups, cgroup_of
from kubelet_plugin.mps_supervisor.daemon import marked_processes
from kubelet_plugin.mps_supervisor.namespaces import Namespaces
from kubelet_plugin.mps_supervisor.surroundings import MARK
from tests.kubelet_plugin.fakes import DRIVER, eventually
from tests.kubelet_plugin.mps_supervisor.plain import NoCgroups, PlainIsolation
from tests.programs import fork

MACHINE = "h100-sxm5-80gb"
NAMED_DRIVER = "615.71.09"  # speaks MPS protocol 3
PATIENCE = 30.0
CLIENT = "usr/bin/simulated-cuda-client"


class SupervisorProcess:
    """``python -m kubelet_plugin.mps_supervisor.main`` with its output in a file."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self.log = log
        self.process = fork("kubelet_plugin.mps_supervisor.main", arguments, os.environ, log, log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def output(self) -> str:
        return self.log.read_text()


class Lab:
    """One node below ``root``, which must have a short name. :meth:`close` ends everything, however it is."""

    def __init__(self, root: Path, machine: str = MACHINE, driver: str | None = None) -> None:
        self.root = root
        self.state_file = root / "gpus.json"
        self.host = root / "host"
        create_state(machine, self.state_file, seed="node-0", driver=driver)
        host_root.build(self.host, self.state_file)
        self.plugin_folder = root / "plugins" / DRIVER
        self.folder = groups_folder(self.plugin_folder)
        self.client = SupervisorClient(socket_of(self.plugin_folder))
        self.isolation = PlainIsolation()  # of supervisors in this process; it outlives them, as mounts do
        self._stack = ExitStack()
        self._clients: list[subprocess.Popen[str]] = []

    def arguments(self, *more: str) -> list[str]:
        return [
            f"--driver-name={DRIVER}",
            f"--kubelet-plugins-directory-path={self.root / 'plugins'}",
            f"--nvidia-driver-root={self.host}",
            f"--container-driver-root={self.root / 'nothing'}",
            f"--host-root={self.host}",
            f"--simulated-state={self.state_file}",
            "--mps-canary-interval=500ms",
            *more,
        ]

    def config(self, *more: str) -> DriverConfiguration:
        parser = argparse.ArgumentParser()
        add_arguments(parser, "supervisor")
        return load(None, {}, vars(parser.parse_args(self.arguments(*more))))

    def process(self, *more: str) -> SupervisorProcess:
        """One with all rights that we have, once it serves."""
        made = self.start_process(*more)
        eventually(self.serves, PATIENCE)
        return made

    def start_process(self, *more: str) -> SupervisorProcess:
        made = SupervisorProcess(self.arguments(*more), self.root / "log")
        self._stack.callback(made.kill)
        return made

    @contextmanager
    def in_process(self, *more: str) -> Iterator[SupervisorApp]:
        """One without any rights, once it serves."""
        app = SupervisorApp(self.config(*more), isolation=self.isolation, cgroups=NoCgroups())
        app.start()
        try:
            eventually(self.serves, PATIENCE)
            yield app
        finally:
            app.stop()

    def serves(self) -> bool:
        try:
            self.client.groups()
        except MpsError:
            return False
        return True

    # -- groups ---------------------------------------------------------------------------------------------------

    @property
    def uuids(self) -> list[str]:
        return [gpu.uuid for gpu in StateFile(self.state_file).read().gpus]

    def group(self, group_id: str = "claim-1", gpu: int = 0, percentage: int | None = 50) -> MpsGroup:
        uuid = self.uuids[gpu]
        return MpsGroup(group_id, (uuid,), (uuid,), percentage, {uuid: 10240})

    def named_group(self, group_id: str = "claim-1", gpus: Sequence[int] = (0,), multi_user: bool = True) -> MpsGroup:
        """Of protocol 3."""
        uuids = tuple(sorted(self.uuids[gpu] for gpu in gpus))
        return MpsGroup(group_id, uuids, uuids, multi_user=multi_user, protocol=NAMED)

    def share(self, name: str = "a", memory: int = 10240, percentage: int | None = 25, gpu: int = 0) -> MpsShare:
        return MpsShare(name, {self.uuids[gpu]: memory}, percentage)

    def folders(self, group_id: str = "claim-1") -> GroupFolders:
        return folders_of(self.plugin_folder, group_id)

    def status(self, group_id: str = "claim-1") -> GroupStatus | None:
        try:
            return next((each for each in self.client.groups() if each.group.id == group_id), None)
        except MpsError:
            return None

    def state(self, group_id: str = "claim-1") -> GroupState | None:
        status = self.status(group_id)
        return None if status is None else status.state

    def wait_for(self, state: GroupState | None, group_id: str = "claim-1") -> None:
        eventually(lambda: self.state(group_id) is state, PATIENCE)

    def compute_modes(self) -> list[ComputeMode]:
        return [ComputeMode(gpu.compute_mode) for gpu in StateFile(self.state_file).read().gpus]

    # -- clients --------------------------------------------------------------------------------------------------

    def counting(self, group_id: str = "claim-1", *options: str, share: str | None = None) -> CountingClient:
        """A client of the group, or of a share of it, that has begun to count."""
        file = self.root / f"count-{len(self._clients)}"
        client = subprocess.Popen(
            [
                str(self.host / CLIENT),
                *("--interval", "0.1", "--count", str(file), *options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._as_client(group_id, share),
        )
        self._clients.append(client)
        counting = CountingClient(client, file)
        eventually(lambda: counting.count > 0 or client.poll() is not None, PATIENCE)
        assert client.poll() is None, client.communicate()
        return counting

    def facts(self, share: str, *options: str, group_id: str = "claim-1", **environment: str) -> dict[str, str]:
        """What a client of a share says that it got."""
        done = subprocess.run(
            [str(self.host / CLIENT), *options],
            capture_output=True,
            text=True,
            env={**self._as_client(group_id, share), **environment},
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return dict(line.split("=", 1) for line in done.stdout.splitlines())

    def mps_control(self, *words: str, group_id: str = "claim-1") -> list[str]:
        """A command of protocol 3 by somebody who is root and has the daemon's own directory."""
        done = subprocess.run(
            [str(self.host / "usr/bin/nvidia-cuda-mps-control"), *words],
            capture_output=True,
            text=True,
            env=self._as_client(group_id),
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout.splitlines()

    def refused_client(self, *options: str, group_id: str = "claim-1", share: str | None = None) -> str:
        """What a client says that must not get what it asks for."""
        done = subprocess.run(
            [str(self.host / CLIENT), *options],
            capture_output=True,
            text=True,
            env=self._as_client(group_id, share),
            timeout=PATIENCE,
        )
        assert done.returncode != 0, done.stdout
        return done.stderr

    def sleeper(self, folder: Path) -> subprocess.Popen[str]:
        """A process that says that it runs for the group of ``folder``."""
        made = subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: str(folder)}, text=True)
        self._clients.append(made)
        process = Process.of(made.pid)
        assert process is not None
        eventually(lambda: process in marked_processes(), PATIENCE)  # it has begun as a copy of us
        return made

    def _as_client(self, group_id: str, share: str | None = None) -> dict[str, str]:
        folders = self.folders(group_id)
        pipe = folders.pipe if share is None else folders.share(share)
        return {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": str(pipe)}

    # -- the node -------------------------------------------------------------------------------------------------

    def reset_compute_modes(self) -> None:
        """As a reboot does."""
        file = StateFile(self.state_file)
        file.update(
            lambda state: state.model_copy(
                update={"gpus": tuple(gpu.model_copy(update={"compute_mode": 0}) for gpu in state.gpus)}
            )
        )

    def mig_device(self, gpu: int) -> str:
        """One of the smallest profile; its UUID."""
        self._smi("-i", str(gpu), "-mig", "1")
        self._smi("mig", "-i", str(gpu), "-cgi", "19", "-C")
        devices = StateFile(self.state_file).read().gpus[gpu].mig_devices()
        return next(compute.uuid for _instance, compute in devices)

    def _smi(self, *arguments: str) -> None:
        subprocess.run(
            [str(self.host / "usr/bin/nvidia-smi"), *arguments], check=True, timeout=PATIENCE, stdout=subprocess.DEVNULL
        )

    # -- what may be left -----------------------------------------------------------------------------------------

    def left(self) -> list[str]:
        """Everything of groups that is on the node: processes, mounts, folders, compute modes, cgroups."""
        found = [
            f"process {process.pid} of {Path(root).name}"
            for process, root in marked_processes().items()
            if Path(root).is_relative_to(self.folder)
        ]
        found += [f"mount {each}" for each in Namespaces().mounted_below(self.folder)]
        found += [f"mount {each}" for each in self.isolation.mounted_below(self.folder)]
        if self.folder.exists():
            found += [f"folder {each.name}" for each in self.folder.iterdir() if each.is_dir()]
        found += [f"mode of GPU {n}" for n, mode in enumerate(self.compute_modes()) if mode is not ComputeMode.DEFAULT]
        return found

    def cgroups(self, group_id: str = "claim-1") -> list[Path]:
        """Of cgroup v1 and v2."""
        name = f"{PARENT}/{cgroup_of(self.folders(group_id))}"
        return [*Path("/sys/fs/cgroup").glob(name), *Path("/sys/fs/cgroup").glob(f"*/{name}")]

    def close(self) -> None:
        for client in self._clients:
            client.kill()
            client.communicate()
        self._stack.close()
        for process, root in marked_processes().items():
            if Path(root).is_relative_to(self.folder):
                process.end(signal.SIGKILL, timeout=PATIENCE)
        for mounted in Namespaces().mounted_below(self.folder):
            Namespaces().unmount(mounted)
        for each in self.folder.iterdir() if self.folder.exists() else ():
            if each.is_dir():
                Cgroups(None).remove(cgroup_of(GroupFolders(each)))


class CountingClient:
    def __init__(self, process: subprocess.Popen[str], file: Path) -> None:
        self.process = process
        self._file = file

    @property
    def count(self) -> int:
        try:
            return int(self._file.read_text() or 0)
        except FileNotFoundError:
            return 0

    def still_counts(self) -> None:
        """It was never interrupted: the very same process, and it goes on."""
        before = self.count
        eventually(lambda: self.count > before or self.process.poll() is not None, PATIENCE)
        assert self.process.poll() is None, self.process.communicate()

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait(PATIENCE)


def ended(process: Process) -> Callable[[], bool]:
    return lambda: not process.alive


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str) -> tuple[int, str]:
    """Status and text; 0 while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except ConnectionRefusedError:
        return 0, ""
    finally:
        connection.close()
