"""Brings a local cluster up, changes it, and takes it down without leaving anything.

Needs root, Go for the programs, and what ``e2e.clusters.packages.LOCAL`` names.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dra_driver.errors import ConfigError
from dra_driver.kube.connect import connect
from dra_driver.kube.interface import NAMESPACES, NODES, ApiError, KubeApi, Resource
from dra_driver.simulation.hardware import host_root
from dra_driver.simulation.hardware.toolkit import HOOK_PATH
from dra_driver.simulation.kubelet.status import is_ready
from e2e.clusters import packages, programs
from e2e.clusters.interface import Ability, ClusterError
from e2e.clusters.local import certificates, network
from e2e.clusters.local.components import CONTAINERD_SOCKET, Components
from e2e.clusters.local.machine import Machine
from e2e.clusters.local.settings import API_PORT, CONTROL, CONTROL_ADDRESS, ClusterSettings, NodeSettings
from e2e.clusters.processes import Process
from e2e.images import driver, pause, workload

_READY_SECONDS = 120.0
_DEFAULTS = ClusterSettings()
_SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True)
_ROOT = Path(__file__).resolve().parents[3]


class LocalCluster:
    """One cluster by its settings; ``up`` makes it, ``attach`` finds it. A ``Cluster`` of e2e.clusters.interface."""

    abilities = frozenset(Ability)

    def __init__(self, settings: ClusterSettings) -> None:
        self.settings = settings
        self.programs = programs.paths([programs.kubernetes(settings.kubernetes), *_MODULES])
        self._components = Components(settings, self.programs)

    # -- life -------------------------------------------------------------------------------------------------------

    @classmethod
    def up(cls, settings: ClusterSettings, *, say: Callable[[str], None] = lambda _: None) -> LocalCluster:
        """Bring it up; returns when all nodes are Ready and pods can be created. Raises ClusterError, with all of it
        taken down again but its logs."""
        if problem := missing_for_local():
            raise ClusterError(problem)
        packages.ensure_packages(packages.LOCAL)
        if running := cls.attach(settings.name):
            if running.settings == settings:
                return running
            raise ClusterError(f"cluster {settings.name} is up with other settings ({running.settings}); take it down")
        cls.down(settings.name)  # what a run that was killed half-way left
        programs.ensure([programs.kubernetes(settings.kubernetes), *_MODULES])
        archives = [pause.pause_archive(), workload.workload_archive(), driver.driver_archive()]
        cluster = cls(settings)
        try:
            cluster._start(archives, _Clock(say))
        except BaseException as error:
            kept = programs.cache_folder() / "logs" / settings.name
            cluster.collect_logs(kept)
            cls.down(settings.name)
            if isinstance(error, (ClusterError, OSError, subprocess.SubprocessError)):
                raise ClusterError(f"cluster {settings.name} did not come up: {error}; logs are in {kept}") from error
            raise
        return cluster

    @classmethod
    def attach(cls, name: str) -> LocalCluster | None:
        """The cluster ``name`` if it is up."""
        settings = ClusterSettings.load(name)
        if settings is None or not settings.kubeconfig.exists():
            return None
        cluster = cls(settings)
        return cluster if all(machine.pid() for machine in cluster._machines.values()) else None

    @classmethod
    def down(cls, name: str) -> list[str]:
        """Take the cluster ``name`` away, however little of it there is; returns one line for each thing left."""
        settings = ClusterSettings.load(name)
        if settings is None:
            return []
        cluster = cls(settings)
        with ThreadPoolExecutor(len(cluster._machines)) as pool:
            left = [line for lines in pool.map(Machine.remove, cluster._machines.values()) for line in lines]
        if forwarder := Process.read(settings.folder / "forward.pid"):
            forwarder.stop()
        if not left:
            shutil.rmtree(settings.folder, ignore_errors=True)
        return left

    # -- Cluster ----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def kubeconfig(self) -> Path:
        return self.settings.kubeconfig

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.settings.node_settings)

    @property
    def simulated_machine(self) -> str | None:
        return self.settings.machine

    @property
    def image(self) -> str | None:
        return driver.reference()

    def run_on_node(self, node: str, command: Sequence[str], *, timeout: float = 60.0) -> str:
        return self.machine(node).run(command, timeout=timeout)

    def restart_kubelet(self, node: str) -> None:
        machine = self.machine(node)
        machine.stop("kubelet")
        machine.start("kubelet", self._components.kubelet(self._node(node)), self._components.environment)

    def reboot(self, node: str) -> None:
        """Every process of the node ends at once and ``/run`` is empty after, as on a machine that lost its power."""
        machine, settings = self.machine(node), self._node(node)
        machine.halt()
        machine.boot(self._binds(settings))
        network.attach(self._machines[CONTROL], settings, machine, self.settings.node_settings)
        self._start_containerd(settings)
        self._start_node(settings)

    def load_image(self, archive: Path) -> None:
        for node in self.nodes:
            self._import(node, archive)

    def collect_logs(self, folder: Path) -> None:
        if self.settings.logs.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copytree(self.settings.logs, folder, dirs_exist_ok=True)

    def running(self) -> dict[str, list[str]]:
        """The components that run, by machine."""
        return {name: sorted(machine.running()) for name, machine in self._machines.items()}

    def enter_command(self, machine: str) -> list[str]:
        """What to put before a command so that it runs on ``machine``."""
        return self.machine(machine).enter_command()

    def machine(self, name: str) -> Machine:
        """One of the cluster's machines, to start and stop processes there. ClusterError where there is none."""
        if name not in self.settings.machines:
            raise ClusterError(f"cluster {self.name} has no {name}; it has {', '.join(self.settings.machines)}")
        settings = self.settings
        return Machine(name, settings.machine_folder(name), f"{settings.name}-{name}", settings.logs / name)

    # -- steps ------------------------------------------------------------------------------------------------------

    def _start(self, archives: Sequence[Path], clock: _Clock) -> None:
        settings, control = self.settings, self._machines[CONTROL]
        settings.save()
        certificates.make(settings)
        self._components.write_files()
        with ThreadPoolExecutor(8) as pool:
            control.boot({str(settings.folder): settings.folder})
            for node in settings.node_settings:
                self.machine(node.name).boot(self._binds(node))
            network.connect(control, {node: self.machine(node.name) for node in settings.node_settings})
            control.start("etcd", self._components.etcd())
            control.start("kube-apiserver", self._components.apiserver())
            nodes = [pool.submit(self._prepare_node, node, archives) for node in settings.node_settings]
            api = self._forward()
            _wait("the API server", lambda: _answers(api))
            clock.tell("API server ready")
            control.start("kube-controller-manager", self._components.controller_manager())
            control.start("kube-scheduler", self._components.scheduler())
            for prepared in nodes:
                prepared.result()
            clock.tell("images loaded")
        for node in settings.node_settings:
            self._start_node(node)
        _wait("nodes to be Ready", lambda: _ready_nodes(api) >= set(self.nodes))
        clock.tell("nodes Ready")
        _wait("the service account of namespace default", lambda: _found(api, _SERVICE_ACCOUNTS, "default", "default"))
        clock.tell("pods can be created")

    def _prepare_node(self, node: NodeSettings, archives: Sequence[Path]) -> None:
        self._start_containerd(node)
        for archive in archives:
            self._import(node.name, archive)

    def _start_containerd(self, node: NodeSettings) -> None:
        machine = self.machine(node.name)
        machine.start("containerd", self._components.containerd(node), self._components.environment)
        _wait(f"containerd of {node.name}", lambda: self._ctr(node.name, "version") is not None, 30.0)

    def _start_node(self, node: NodeSettings) -> None:
        machine = self.machine(node.name)
        machine.start("kubelet", self._components.kubelet(node), self._components.environment)
        machine.start("kube-proxy", self._components.kube_proxy(node), self._components.environment)

    def _import(self, node: str, archive: Path) -> None:
        machine = self.machine(node)
        machine.run([*self._ctr_command(), "images", "import", "--local", str(archive)], timeout=180)

    def _ctr(self, node: str, *arguments: str) -> str | None:
        try:
            return self.machine(node).run([*self._ctr_command(), *arguments])
        except ClusterError:
            return None

    def _ctr_command(self) -> list[str]:
        return [str(self.programs["ctr"]), "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io"]

    def _forward(self) -> KubeApi:
        """Start the forwarder from this machine into ``control`` and write the kubeconfig that uses it."""
        folder = self.settings.folder
        port_file = folder / "forward.port"
        port_file.unlink(missing_ok=True)
        pid = self._machines[CONTROL].pid()
        command = [sys.executable, "-m", "e2e.clusters.forward", "--listen", "127.0.0.1:0", "--namespace-of", str(pid)]
        command += ["--target", f"{CONTROL_ADDRESS}:{API_PORT}", "--port-file", str(port_file)]
        with (self.settings.logs / "forward.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
            )
        if known := Process.of(process.pid):
            known.write(folder / "forward.pid")
        _wait("the forwarder", lambda: port_file.exists() or process.poll() is not None, 15.0)
        if process.poll() is not None:
            raise ClusterError(f"the forwarder ended with {process.returncode}; see forward.log")
        certificates.write_outside_kubeconfig(self.settings, int(port_file.read_text()))
        return connect(str(self.kubeconfig), timeout=10)

    def _binds(self, node: NodeSettings) -> dict[str, Path]:
        folder = self.settings.machine_folder(node.name)
        own = {f"/var/lib/{name}": folder / name for name in ("kubelet", "containerd", "gpu-dra")}
        _bring_driver_files(own["/var/lib/gpu-dra"] / "simulated/host", self.programs["nvidia-cdi-hook"])
        return {**own, "/var/log": folder / "log", str(self.settings.folder): self.settings.folder}

    @property
    def _machines(self) -> Mapping[str, Machine]:
        return {name: self.machine(name) for name in self.settings.machines}

    def _node(self, name: str) -> NodeSettings:
        return next(node for node in self.settings.node_settings if node.name == name)


@contextlib.contextmanager
def session(
    *,
    kubernetes: str = programs.NEWEST_KUBERNETES,
    nodes: int = 1,
    machine: str = _DEFAULTS.machine,
    keep: bool = False,
    name: str = _DEFAULTS.name,
    without: tuple[str, ...] = (),
) -> Iterator[LocalCluster]:
    """A cluster for as long as the context lasts, also when this process is killed; with ``keep`` it stays up.

    One that is up already with the same settings is used, and stays.
    """
    minor = ".".join(kubernetes.split(".")[:2])
    settings = ClusterSettings(name, minor, nodes, machine, without)
    there = LocalCluster.attach(settings.name)
    if there is not None and there.settings == settings:
        yield there
        return
    guard = None if keep else _start_guard(settings)
    try:
        yield LocalCluster.up(settings, say=lambda text: print(text, file=sys.stderr, flush=True))
    finally:
        if guard is not None:
            left = LocalCluster.down(settings.name)
            # Only now; and not left waiting, or it would take down a later cluster of this name.
            guard.terminate()
            guard.wait()
            if left:
                raise ClusterError(f"left behind: {'; '.join(left)}")


def missing_for_local() -> str | None:
    """One line that says why no local cluster can be brought up here; None when it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a local cluster needs Linux and root"
    if shutil.which("go") is None:
        return "a local cluster is built from Go modules: put `go` on PATH"
    namespaces = ["unshare", "--mount", "--net", "--pid", "--cgroup", "--fork", "true"]
    probe = subprocess.run(namespaces, capture_output=True, text=True, check=False)
    return f"no namespaces can be made here: {probe.stderr.strip()}" if probe.returncode else None


_MODULES = (
    programs.CONTAINERD,
    programs.CNI,
    programs.ETCD,
    programs.HELM,
    programs.PAUSE,
    programs.CDI_HOOK,
)


def _start_guard(settings: ClusterSettings) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "e2e.clusters.local.guard", str(os.getpid()), settings.name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )


def _bring_driver_files(root: Path, hook: Path) -> None:
    """What the simulated driver's tree has from this machine: the container toolkit's program, where it lies on a node
    whose driver is in this tree, and NVML as a library, which the driver's image has no compiler for."""
    place = root / HOOK_PATH
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(hook, place)
        host_root.bring_library(root)


@dataclass(frozen=True, slots=True)
class _Clock:
    """Tells each step with the seconds since the beginning."""

    say: Callable[[str], None]
    began: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "began", time.monotonic())

    def tell(self, text: str) -> None:
        self.say(f"{time.monotonic() - self.began:6.1f} s  {text}")


def _wait(what: str, done: Callable[[], bool], seconds: float = _READY_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.1)


def _answers(api: KubeApi) -> bool:
    return _found(api, NAMESPACES, "default")


def _found(api: KubeApi, resource: Resource, name: str, namespace: str | None = None) -> bool:
    try:
        api.get(resource, name, namespace)
    except (ApiError, ConfigError):
        return False
    return True


def _ready_nodes(api: KubeApi) -> set[str]:
    return {node["metadata"]["name"] for node in api.list(NODES).items if is_ready(node)}
