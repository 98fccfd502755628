"""A whole cluster on one machine: embedded API, simulated nodes, the real controller and one real plugin per node.

In this process: the API and its server, the fake kubelets, scheduler and claim controller, as threads. As processes of
their own: ``controller.main``, ``kubelet_plugin.main`` and, where they are asked for, MPS supervisors, which know
nothing of being simulated but the flag that names their node's hardware state. Everything lies in one folder:

    kubeconfig, driver.json          logs/<process>.log
    <node>/gpus.json                 the simulated hardware's state
    <node>/host/                     the node's file tree: /dev, /sys, driver libraries
    <node>/kubelet/, <node>/cdi/     sockets, checkpoint, CDI files
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from api.settings import CONFIG_ENV, IDENTITY, SETTINGS
from dra_driver.allocator.allocate import Snapshot
from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.allocator.nodes import Node
from dra_driver.allocator.selectors import SelectorError, SelectorErrorKind
from dra_driver.kube.interface import CUSTOM_RESOURCE_DEFINITIONS, DEVICE_CLASSES, RESOURCE_SLICES, Obj
from dra_driver.kube.lists import list_all
from dra_driver.kube.reflector import Reflector
from dra_driver.simulation import contained
from dra_driver.simulation.apiserver.server import ApiServer
from dra_driver.simulation.controllers.objects import ClaimController
from dra_driver.simulation.hardware import create_state, host_root
from dra_driver.simulation.kubelet import FakeKubelet
from dra_driver.simulation.manifests import DEFAULT_DRIVER, custom_resource_definitions, device_classes
from dra_driver.simulation.process import ChildProcess, ProcessDiedError
from dra_driver.simulation.scheduler.scheduler import Scheduler
from dra_driver.simulation.store import EmbeddedApi
from dra_driver.simulation.validation import ExpressionCheck

_POLL_SECONDS = 0.02
_LONGEST_SOCKET_PATH = 107  # sun_path without its final NUL
_OUR_VARIABLES = frozenset({CONFIG_ENV, *(entry.env for entry in SETTINGS), *(entry.env for entry in IDENTITY)})


class ClusterNotReadyError(Exception):
    """The cluster did not come up in time; the message says what is missing and where the logs are."""


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """Where one node's things are. ``kubelet`` may lead to the same folder by a shorter path."""

    name: str
    folder: Path
    kubelet: Path

    @property
    def state(self) -> Path:
        return self.folder / "gpus.json"

    @property
    def host(self) -> Path:
        return self.folder / "host"

    @property
    def cdi(self) -> Path:
        return self.folder / "cdi"

    def plugin_folder(self, driver: str) -> Path:
        """The plugin's socket and state."""
        return self.kubelet / "plugins" / driver


class EmbeddedCluster:
    """``machine`` is a recorded machine's name or a machine file; ``folder`` is empty or does not exist.

    ``leader_election``: as in production; otherwise the one controller, which has nobody to elect, leads at once.
    ``configuration``: the DriverConfiguration that its programs start with. ``driver_version``: of the GPUs' driver, in
    the place of the machine's.
    """

    def __init__(
        self,
        machine: str,
        nodes: int,
        folder: Path,
        *,
        driver: str = DEFAULT_DRIVER,
        log_level: str = "info",
        leader_election: bool = False,
        configuration: Obj | None = None,
        driver_version: str | None = None,
    ) -> None:
        self.folder = folder
        self.driver = driver
        self._alias = _short_path(folder, driver)
        self.nodes = tuple(_node_files(f"gpu-node-{number}", folder, self._alias) for number in range(nodes))
        self.kubeconfig = folder / "kubeconfig"
        self.logs = folder / "logs"
        self._machine = machine
        self._log_level = log_level
        self._leader_election = leader_election
        self._configuration = configuration
        self._driver_version = driver_version
        engine = CelEngine()
        self.api = EmbeddedApi(check_expression=_expression_check(engine))
        self._server = ApiServer(self.api)
        self._scheduler = Scheduler(self.api, engine=engine)
        self._claims = ClaimController(self.api)
        self.kubelets = {node.name: FakeKubelet(node.name, self.api, node.kubelet, [node.cdi]) for node in self.nodes}
        self._processes: list[ChildProcess] = []

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        """1. API with CRDs. 2. The controller, and nodes with kubelet and plugin: processes that take their time.
        3. Classes, whose expressions are compiled meanwhile. 4. Scheduler and claim controller.
        Raises OSError and DriverError (an unknown machine, no room)."""
        self.logs.mkdir(parents=True, exist_ok=True)
        if self._alias != self.folder:
            self._alias.symlink_to(self.folder, target_is_directory=True)
        if self._configuration is not None:
            self._config_file.write_text(json.dumps(self._configuration), encoding="utf-8")
        self._server.start()
        self._server.write_kubeconfig(self.kubeconfig)
        for definition in custom_resource_definitions():
            self.api.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
        self._start_process("controller", "controller.main", self._controller_arguments())
        for node in self.nodes:
            self._start_node(node)
        for device_class in device_classes(self.driver):
            self.api.create(DEVICE_CLASSES, device_class)
        self._scheduler.start()
        self._claims.start()

    def start_supervisors(self) -> None:
        """An MPS supervisor for each node, where the machine lets it do its work (:func:`contained.is_possible`)."""
        for node in self.nodes:
            arguments = ["kubelet_plugin.mps_supervisor.main", *self._hardware_arguments(node)]
            arguments += [*self._config_arguments(), f"--driver-name={self.driver}", f"--log-level={self._log_level}"]
            self._start_process(f"mps-{node.name}", contained.__name__, arguments)

    def stop(self) -> None:
        """1. Nothing new is placed. 2. Kubelets, so that plugins may go unnoticed. 3. All processes are asked, then
        waited for. 4. The API server.
        What was not started is not stopped: it may be called after a start that failed."""
        self._scheduler.stop()
        self._claims.stop()
        for kubelet in self.kubelets.values():
            kubelet.stop()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.stop()
        self._server.stop()
        if self._alias != self.folder:
            self._alias.unlink(missing_ok=True)

    def check(self) -> None:
        """Raises ProcessDiedError when a process of the cluster has ended."""
        for process in self._processes:
            process.check()

    @property
    def pids(self) -> dict[str, int]:
        return {process.name: process.pid for process in self._processes if process.pid is not None}

    def restart(self, name: str) -> None:
        """End the process ``name`` (a key of :attr:`pids`) and start it anew, as an upgrade does."""
        process = next(process for process in self._processes if process.name == name)
        process.stop()
        process.start()

    def nodes_without_devices(self) -> list[str]:
        """Nodes whose plugin's devices are not (all) published yet."""
        return self._without_devices(list_all(self.api, RESOURCE_SLICES))

    def wait_until_ready(self, timeout: float) -> None:
        """Until every node's devices are published. Raises ProcessDiedError and ClusterNotReadyError."""
        deadline = time.monotonic() + timeout
        # Reading every device at each look would take the time of those that are still being made.
        slices = Reflector(self.api, RESOURCE_SLICES, transform=_empty_slice)
        slices.start()
        try:
            while missing := self._without_devices(slices.store.objects()) or self.nodes_without_devices():
                self.check()
                if time.monotonic() > deadline:
                    raise self._not_ready(missing, timeout)
                time.sleep(_POLL_SECONDS)
        finally:
            slices.stop()

    def _without_devices(self, slices: Iterable[Obj]) -> list[str]:
        snapshot = Snapshot.from_objects(slices, (), ())
        missing = []
        for node in self.nodes:
            pools = [pool for pool in snapshot.pools_on(Node(node.name)) if pool.driver == self.driver]
            if not pools or any(pool.problem for pool in pools):
                missing.append(node.name)
        return missing

    def _not_ready(self, missing: Sequence[str], timeout: float) -> ClusterNotReadyError:
        tails = [f"  {process.name}: {line}" for process in self._processes for line in process.log_tail(3)]
        text = f"after {timeout:.0f} s no devices are published for {', '.join(missing)}; logs in {self.logs}:"
        return ClusterNotReadyError("\n".join([text, *tails]))

    def _start_node(self, node: NodeFiles) -> None:
        for folder in (node.cdi, node.kubelet, node.host):
            folder.mkdir(parents=True, exist_ok=True)
        create_state(self._machine, node.state, seed=node.name, driver=self._driver_version)
        host_root.build(node.host, node.state)
        self.kubelets[node.name].start()
        self._start_process(f"plugin-{node.name}", "kubelet_plugin.main", self._plugin_arguments(node))

    def _start_process(self, name: str, module: str, arguments: Sequence[str]) -> None:
        log = self.logs / f"{name}.log"
        process = ChildProcess(name, module, arguments, log, hidden_variables=_OUR_VARIABLES)
        self._processes.append(process)
        process.start()

    @property
    def _config_file(self) -> Path:
        return self.folder / "driver.json"

    def _config_arguments(self) -> list[str]:
        return [] if self._configuration is None else [f"--config={self._config_file}"]

    def _common_arguments(self) -> list[str]:
        return [
            *self._config_arguments(),
            f"--kubeconfig={self.kubeconfig}",
            f"--driver-name={self.driver}",
            f"--log-level={self._log_level}",
        ]

    def _controller_arguments(self) -> list[str]:
        election = f"--leader-elect={str(self._leader_election).lower()}"
        # One controller has nobody's load to spread.
        return [*self._common_arguments(), election, "--wipe-settle=0s", "--wipe-jitter=0s"]

    def _plugin_arguments(self, node: NodeFiles) -> list[str]:
        kubelet = self.kubelets[node.name]
        return [
            *self._common_arguments(),
            f"--node-name={node.name}",
            f"--kubelet-registrar-directory-path={kubelet.registry_dir}",
            f"--cdi-root={node.cdi}",
            *self._hardware_arguments(node),
        ]

    def _hardware_arguments(self, node: NodeFiles) -> list[str]:
        """What plugin and MPS supervisor of a node are told alike."""
        return [
            f"--kubelet-plugins-directory-path={self.kubelets[node.name].plugins_dir}",
            f"--nvidia-driver-root={node.host}",
            f"--container-driver-root={node.host}",
            f"--host-root={node.host}",
            f"--simulated-state={node.state}",
        ]


def _empty_slice(resource_slice: Obj) -> Obj:
    """What says whether a pool is whole."""
    spec = {key: value for key, value in resource_slice["spec"].items() if key not in ("devices", "sharedCounters")}
    return {"metadata": resource_slice["metadata"], "spec": spec}


def _node_files(name: str, folder: Path, alias: Path) -> NodeFiles:
    return NodeFiles(name, folder / name, alias / name / "kubelet")


def _short_path(folder: Path, driver: str) -> Path:
    """The folder itself, or a name for a link to it when sockets in it would have too long a path for the kernel."""
    longest = folder / "gpu-node-00" / "kubelet" / "plugins_registry" / f"{driver}-reg.sock"
    if len(os.fsencode(longest)) <= _LONGEST_SOCKET_PATH:
        return folder
    return Path(tempfile.gettempdir()) / f"gpu-dra-{secrets.token_hex(4)}"


def _expression_check(engine: CelEngine) -> ExpressionCheck:
    """What the API server would refuse. A feature that only our engine lacks is no reason to."""

    def check(expression: str) -> str | None:
        try:
            engine.compile(expression)
        except SelectorError as error:
            return None if error.kind is SelectorErrorKind.UNSUPPORTED else str(error)
        return None

    return check


__all__ = ["ClusterNotReadyError", "EmbeddedCluster", "NodeFiles", "ProcessDiedError"]
