"""A whole simulated node: API server over HTTP, fake kubelet, and the plugin as a real process on simulated GPUs."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dra_driver.kube.interface import EVENTS, NODE_INVENTORIES, ApiError, Obj
from dra_driver.simulation.apiserver.server import ApiServer
from dra_driver.simulation.hardware import create_state
from dra_driver.simulation.hardware.host_root import build
from dra_driver.simulation.kubelet import KubeletOptions
from tests.bench.process import rss_mib
from tests.kubelet_plugin.fakes import DRIVER, FAST, NODE, Cluster, eventually
from tests.programs import Starter, fork
from tests.run_guard import mark

MACHINE = "a100-sxm4-40gb"


class PluginProcess:
    """``python -m kubelet_plugin.main`` with its output in a file."""

    def __init__(self, start: Starter, arguments: Sequence[str], log: Path, environ: dict[str, str]) -> None:
        self.log = log
        self.process = start("kubelet_plugin.main", arguments, {**_clean_environment(), **environ}, log, log)

    def terminate(self, timeout: float = 20.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def output(self) -> str:
        return self.log.read_text()

    def resident_mebibytes(self) -> float:
        return rss_mib(self.process.pid)


class NodeLab:
    """Everything of one node below ``root``; ``close`` ends what was started."""

    def __init__(
        self,
        root: Path,
        machine: str = MACHINE,
        options: KubeletOptions = FAST,
        driver: str | None = None,
        start: Starter = fork,
    ) -> None:
        self.root = root
        self._start = start
        self.cluster = Cluster(root, options)
        self.api = self.cluster.api
        self.kubelet = self.cluster.kubelet
        self.host = root / "host"
        self.state = root / "gpus.json"
        create_state(machine, self.state, seed=NODE, driver=driver)
        build(self.host, self.state)
        self.kubeconfig = root / "kubeconfig"
        self._stack = ExitStack()
        server = ApiServer(self.api)
        server.start()
        self._stack.callback(server.stop)
        server.write_kubeconfig(self.kubeconfig)
        self.kubelet.start()
        self._stack.callback(self.kubelet.stop)

    def close(self) -> None:
        self._stack.close()

    def plugin(self, *extra: str, pod_uid: str = "pod-1", **environ: str) -> PluginProcess:
        """Started with :meth:`arguments`."""
        plugin = PluginProcess(
            self._start, self.arguments(*extra, pod_uid=pod_uid), self.root / f"{pod_uid}.log", environ
        )
        self._stack.callback(_end, plugin)
        return plugin

    def arguments(self, *extra: str, pod_uid: str = "pod-1") -> list[str]:
        """The flags that the chart gives; ``extra`` ones win."""
        return [
            f"--node-name={NODE}",
            f"--pod-uid={pod_uid}",
            f"--kubelet-plugins-directory-path={self.kubelet.plugins_dir}",
            f"--kubelet-registrar-directory-path={self.kubelet.registry_dir}",
            f"--cdi-root={self.cluster.cdi_dir}",
            f"--nvidia-driver-root={self.host}",
            f"--container-driver-root={self.host}",
            f"--host-root={self.host}",
            f"--simulated-state={self.state}",
            f"--kubeconfig={self.kubeconfig}",
            "--rescan-interval=200ms",
            *extra,
        ]

    def inventory(self) -> Obj:
        """The node's NodeInventory; empty before it exists."""
        try:
            return self.api.get(NODE_INVENTORIES, NODE)
        except ApiError:
            return {}

    def status(self) -> dict[str, Any]:
        return self.inventory().get("status") or {}

    def condition(self, kind: str) -> dict[str, Any]:
        conditions = self.status().get("conditions") or ()
        return next((condition for condition in conditions if condition["type"] == kind), {})

    def wait_ready(self) -> None:
        """Until the kubelet has the plugin, and the inventory says so."""
        assert self.kubelet.wait_for_plugin(DRIVER, timeout=20)
        eventually(lambda: self.condition("HardwareReady"), timeout=20)
        eventually(lambda: self.status().get("registration", {}).get("registered"), timeout=20)

    def events(self, reason: str) -> list[Obj]:
        return [event for event in self.api.list(EVENTS).items if event["reason"] == reason]


def _end(plugin: PluginProcess) -> None:
    if plugin.running:
        plugin.kill()


def _clean_environment() -> dict[str, str]:
    """Ours without what would configure the plugin."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "PYTHONPATH")}
    return {**kept, **mark()}
