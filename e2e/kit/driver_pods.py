"""The driver's pods: which one serves a node, which one leads, and faults of simulated GPUs played from inside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from dra_driver.kube.interface import LEASES, NODE_INVENTORIES, PODS, KubeApi, NotFound, Obj
from e2e.install import CONTROLLER, NAMESPACE
from e2e.kit.kubectl import Kubectl, KubectlError
from e2e.kit.waiting import NotYet, eventually

PLUGIN_LABELS = "app.kubernetes.io/component=kubelet-plugin"
CONTROLLER_LABELS = "app.kubernetes.io/component=controller"
SUPERVISOR_LABELS = "app.kubernetes.io/component=mps-supervisor"
PLUGIN_CONTAINER = "gpus"
STATE = "/var/lib/gpu-dra/simulated/gpus.json"
_FAULTS = "from pathlib import Path; from dra_driver.simulation.hardware import faults; state = Path({state!r}); "


@dataclass(frozen=True, slots=True)
class DriverPods:
    """The pods of the installed driver."""

    api: KubeApi
    kubectl: Kubectl

    def plugin(self, node: str) -> Obj:
        """The plugin that serves a node. Raises TimedOut when none is there."""

        def look() -> Obj:
            found = [pod for pod in self.plugins() if pod["spec"].get("nodeName") == node]
            if not found:
                raise NotYet(f"no plugin pod on {node}")
            return found[-1]

        return eventually(look, 60)

    def plugins(self) -> list[Obj]:
        """Oldest first, without those that are being deleted."""
        return self._alive(PLUGIN_LABELS)

    def supervisors(self) -> list[Obj]:
        return self._alive(SUPERVISOR_LABELS)

    def controllers(self) -> list[Obj]:
        return self._alive(CONTROLLER_LABELS)

    def leader(self) -> str:
        """Name of the pod that holds the controller's lease; empty when none does, or one that is gone."""
        try:
            lease = self.api.get(LEASES, CONTROLLER, NAMESPACE)
        except NotFound:
            return ""
        holder = (lease.get("spec") or {}).get("holderIdentity") or ""
        alive = {pod["metadata"]["name"] for pod in self.controllers()}
        return next((name for name in alive if holder.startswith(name)), "")

    def wait_leader(self) -> str:
        """The leader's pod, once there is one. Raises TimedOut."""

        def look() -> str:
            if name := self.leader():
                return name
            raise NotYet("no controller pod holds the lease")

        return eventually(look, 60)

    def replace_driver(self, node: str, version: str) -> None:
        """The simulated GPUs of a node have another driver from now on; its plugin starts anew because of that."""
        code = "from dra_driver.simulation.hardware.driver import replace_driver; "

        def play() -> None:
            try:
                self._play(node, f"{code}replace_driver(state, libraries={version!r}, module={version!r})")
            except KubectlError as error:  # its container is being started anew
                raise NotYet(str(error)) from error

        eventually(play, 60)

    def forget_memory_limits(self, node: str) -> None:
        """Nothing limits memory of simulated GPUs by cgroup any more, as after a driver that was loaded anew."""
        self._play(node, "faults.forget_memory_limits(state)")

    @contextlib.contextmanager
    def lost_gpu(self, node: str, minor: int) -> Iterator[None]:
        """The GPU has fallen off the bus, until the end of the context."""
        self._play(node, f"faults.lose_gpu(state, {self._index(node, minor)})")
        try:
            yield
        finally:
            self._play(node, "faults.clear_faults(state)")

    def report_xid(self, node: str, minor: int, xid: int) -> None:
        """The GPU reports an XID error once, to all who wait for its events."""
        self._play(node, f"faults.add_xid(state, {self._index(node, minor)}, {xid})")

    @contextlib.contextmanager
    def failing_call(self, node: str, function: str, code: int) -> Iterator[None]:
        """The NVML function answers that nvmlReturn_t, until the end of the context."""
        self._play(node, f"faults.inject_error(state, {function!r}, {code})")
        try:
            yield
        finally:
            self._play(node, "faults.clear_faults(state)")

    def _play(self, node: str, statement: str) -> None:
        program = _FAULTS.format(state=STATE) + statement
        pod = self.plugin(node)["metadata"]["name"]
        self.kubectl.execute(NAMESPACE, pod, PLUGIN_CONTAINER, ["python3", "-c", program])

    def _index(self, node: str, minor: int) -> int:
        machine = self.api.get(NODE_INVENTORIES, node)["status"]["machine"]
        return int(next(gpu["index"] for gpu in machine["gpus"] if gpu["minor"] == minor))

    def _alive(self, labels: str) -> list[Obj]:
        pods = self.api.list(PODS, NAMESPACE, label_selector=labels).items
        alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        return sorted(alive, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
