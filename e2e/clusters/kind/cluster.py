"""A running kind cluster, as a suite uses it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.clusters.interface import Ability, ClusterError
from e2e.clusters.kind.daemon import Daemon
from e2e.clusters.kind.engine import users_docker
from e2e.clusters.kind.state import State, StateFolder
from e2e.clusters.kind.tools import kind_program
from e2e.clusters.runner import Runner

_LOAD_SECONDS = 180.0
_REBOOT_SECONDS = 120.0
_BOOT_SECONDS = 60.0
_STOP_SECONDS = "2"  # then the power goes: systemd would wait for every container of a pod


@dataclass(frozen=True, slots=True)
class KindCluster:
    """Implements :class:`e2e.clusters.interface.Cluster`."""

    folder: StateFolder
    state: State
    engine: Runner

    @classmethod
    def attach(cls, name: str) -> KindCluster:
        """The cluster that an earlier command brought up. Raises ClusterError when there is none that runs."""
        folder = StateFolder.of(name)
        state = folder.read()
        if state is None or not state.ready:
            raise ClusterError(f"there is no kind cluster {name}: python -m e2e.clusters.kind up --name {name}")
        return cls(folder, state, engine_of(folder, state))

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def kubeconfig(self) -> Path:
        return self.folder.kubeconfig

    @property
    def nodes(self) -> tuple[str, ...]:
        """kind taints a control plane that has workers."""
        workers = tuple(node for node in self.state.nodes if "-control-plane" not in node)
        return workers or self.state.nodes

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({Ability.RUN_ON_NODE, Ability.RESTART_KUBELET, Ability.REBOOT_NODE})

    @property
    def simulated_machine(self) -> str | None:
        return self.state.machine

    @property
    def image(self) -> str | None:
        return self.state.image

    def run_on_node(self, node: str, command: Sequence[str], *, timeout: float = 60.0) -> str:
        return self.engine.run(["docker", "exec", self._known(node), *command], timeout=timeout)

    def restart_kubelet(self, node: str) -> None:
        self.run_on_node(node, ["systemctl", "restart", "kubelet"])

    def reboot(self, node: str) -> None:
        self.engine.run(["docker", "restart", "-t", _STOP_SECONDS, self._known(node)], timeout=_REBOOT_SECONDS)
        deadline = time.monotonic() + _BOOT_SECONDS
        while not self.engine.succeeds(["docker", "exec", node, "systemctl", "is-active", "--quiet", "kubelet"]):
            if time.monotonic() > deadline:
                raise ClusterError(f"{node}: the kubelet did not start within {_BOOT_SECONDS:.0f} s of the reboot")
            time.sleep(0.1)

    def load_image(self, archive: Path) -> None:
        command = [kind_program(), "load", "image-archive", "--name", self.name, str(archive.absolute())]
        self.engine.run(command, timeout=_LOAD_SECONDS)

    def collect_logs(self, folder: Path) -> None:
        collect_logs(self.engine, self.folder, folder)

    def _known(self, node: str) -> str:
        if node not in self.state.nodes:
            raise ClusterError(f"{self.name} has no node {node!r}, but {', '.join(self.state.nodes)}")
        return node


def engine_of(folder: StateFolder, state: State) -> Runner:
    """How to reach the daemon of a cluster. Raises ClusterError when it is gone."""
    if not state.own_daemon:
        engine = users_docker()
        if engine is None:
            raise ClusterError(f"the cluster {folder.name} is in Docker, which does not answer")
        return engine
    process = state.processes.get("daemon")
    if process is None or not process.alive:
        raise ClusterError(
            f"the Docker daemon of {folder.name} is gone: python -m e2e.clusters.kind down --name {folder.name}"
        )
    return daemon_of(folder).engine(process)


def daemon_of(folder: StateFolder) -> Daemon:
    return Daemon(folder.path, f"gpu-dra-kind-{folder.name}")


def collect_logs(engine: Runner, state_folder: StateFolder, target: Path) -> None:
    """Everything kind knows to collect, and the log of a daemon of our own."""
    target.mkdir(parents=True, exist_ok=True)
    command = [kind_program(), "export", "logs", "--quiet", "--name", state_folder.name, str(target.absolute())]
    engine.run(command, timeout=120)
    log = daemon_of(state_folder).log
    if log.exists():
        (target / log.name).write_bytes(log.read_bytes())
