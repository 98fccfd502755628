"""One node for measurements: an API server process, a real plugin process on simulated H100s, and us as the kubelet."""

from __future__ import annotations

import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from api.kubelet import dra_v1_pb2
from api.kubelet.registration_v1_pb2 import RegistrationStatus
from api.kubelet.services import REGISTRATION
from dra_driver.kube.cluster import ClusterApi
from dra_driver.kube.connect import connect
from dra_driver.kube.interface import NODE_INVENTORIES, NODES, RESOURCE_CLAIMS, NotFound, Obj
from dra_driver.mps.group import socket_of
from dra_driver.simulation import contained
from dra_driver.simulation.hardware import create_state, host_root
from tests.bench.calls import Calls
from tests.bench.process import Measured

NODE = "bench-node"
DRIVER = "gpu.nvidia.com"
# Daemons run without docstrings and asserts, and with one malloc arena: 2 MiB less.
AS_IN_THE_IMAGE = {"PYTHONOPTIMIZE": "2", "MALLOC_ARENA_MAX": "1"}
START_TIMEOUT = 30.0


@dataclass
class BenchNode:
    """The running pieces. Times are in milliseconds."""

    api: ClusterApi
    plugin: Measured
    channel: grpc.Channel

    def __post_init__(self) -> None:
        calls = Calls(self.channel)
        self.prepare, self.unprepare = calls.prepare, calls.unprepare

    def allocated_claims(self, gpus: Iterable[int]) -> list[dra_v1_pb2.Claim]:
        """New claims, one GPU each, allocated as the scheduler writes it."""
        return [self.allocated_claim(f"gpu-{minor}") for minor in gpus]

    def allocated_claim(self, device: str, parameters: Obj | None = None, share: Obj | None = None) -> dra_v1_pb2.Claim:
        """A new claim of ``device``, with an opaque configuration of ours where ``parameters`` are given. ``share``:
        what the result has of a share, where it is one."""
        name = f"claim-{uuid.uuid4()}"
        request = {"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com"}}
        claim = self.api.create(
            RESOURCE_CLAIMS,
            {
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"devices": {"requests": [request]}},
            },
        )
        result: Obj = {"request": "gpu", "driver": DRIVER, "pool": NODE, "device": device, **(share or {})}
        devices: Obj = {"results": [result]}
        if parameters is not None:
            devices["config"] = [{"source": "FromClaim", "opaque": {"driver": DRIVER, "parameters": parameters}}]
        claim["status"] = {"allocation": {"devices": devices}}
        claim = self.api.update(RESOURCE_CLAIMS, claim, subresource="status")
        return dra_v1_pb2.Claim(namespace="default", name=name, uid=claim["metadata"]["uid"])


@dataclass(frozen=True)
class Place:
    """The folders and the API of one run; plugins are started on it again and again."""

    folder: Path
    cdi: Path  # on a tmpfs where there is one, as /var/run/cdi is on a node
    kubeconfig: Path
    api: ClusterApi

    @property
    def state(self) -> Path:
        """Of the simulated GPUs."""
        return self.folder / "state.json"

    def plugin(self, *options: str) -> Measured:
        command = [sys.executable, "-m", "kubelet_plugin.main", "--node-name", NODE, *self._surroundings(), *options]
        command += ["--kubeconfig", str(self.kubeconfig), "--cdi-root", str(self.cdi)]
        command += ["--kubelet-registrar-directory-path", str(self.folder / "registry")]
        return Measured(command, self.folder / "plugin.log", AS_IN_THE_IMAGE)

    def supervisor(self, *options: str) -> Measured:
        """The MPS supervisor, with mounts and processes of its own: whatever it leaves ends with it."""
        command = [sys.executable, "-m", contained.__name__, "kubelet_plugin.mps_supervisor.main"]
        command += [*self._surroundings(), *options]
        return Measured(command, self.folder / "supervisor.log", AS_IN_THE_IMAGE)

    def wait_for_supervisor(self) -> None:
        """Returns when it serves."""
        deadline = time.monotonic() + START_TIMEOUT
        while not socket_of(self.folder / "plugins" / DRIVER).exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"no MPS supervisor after {START_TIMEOUT:g} s; see {self.folder}/supervisor.log")
            time.sleep(0.01)

    def _surroundings(self) -> list[str]:
        host = str(self.folder / "host")
        options = ["--simulated-state", str(self.state), "--host-root", host, "--nvidia-driver-root", host]
        return [*options, "--container-driver-root", host, "--kubelet-plugins-directory-path", f"{self.folder}/plugins"]

    def wait_for_inventory(self, plugin: Measured) -> None:
        """Returns as soon as the node's inventory has GPUs."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            plugin.check()
            try:
                status = self.api.get(NODE_INVENTORIES, NODE).get("status") or {}
            except NotFound:
                status = {}
            if (status.get("machine") or {}).get("gpus"):
                return
            time.sleep(0.005)
        raise RuntimeError(f"no inventory after {START_TIMEOUT:g} s; see {plugin.log}")

    def forget_inventory(self) -> None:
        self.api.delete(NODE_INVENTORIES, NODE)


@contextmanager
def place(folder: Path, driver: str | None = None) -> Iterator[Place]:
    """An API server process with one Node, and the file tree of a simulated node. ``driver``: of another version than
    the machine was recorded with."""
    for name in ("registry", "plugins", "host"):
        (folder / name).mkdir()
    create_state("h100-sxm5-80gb", folder / "state.json", seed=NODE, driver=driver)
    host_root.build(folder / "host", folder / "state.json")
    with ExitStack() as stack:
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        cdi = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpu-dra-bench-cdi-", dir=memory)))
        command = [sys.executable, "-m", "tests.bench.api_process", str(folder)]
        server = stack.enter_context(Measured(command, folder / "api.log"))
        server.stdout.readline()
        server.check()
        api = connect(str(folder / "kubeconfig"))
        api.create(NODES, {"metadata": {"name": NODE}})
        yield Place(folder, cdi, folder / "kubeconfig", api)


@contextmanager
def serving(where: Place, *options: str) -> Iterator[BenchNode]:
    """A plugin that has told its inventory and is registered with us; ``options`` are further ones of its own."""
    with ExitStack() as stack:
        plugin = stack.enter_context(where.plugin(*options))
        where.wait_for_inventory(plugin)
        registrar = stack.enter_context(grpc.insecure_channel(f"unix:{_only_socket(where.folder / 'registry')}"))
        registration = REGISTRATION.client(registrar)
        endpoint = registration.get_info(timeout=5).endpoint
        channel = stack.enter_context(grpc.insecure_channel(f"unix:{endpoint}"))
        registration.notify(RegistrationStatus(plugin_registered=True), timeout=5)
        yield BenchNode(where.api, plugin, channel)


def _only_socket(registry: Path) -> Path:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        for path in registry.glob("*.sock"):
            return path
        time.sleep(0.005)
    raise RuntimeError(f"no registration socket in {registry}")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
