"""Nodes without a kubelet: Node objects with the inventories that our kubelet plugin would write, and its answers.

Nobody renews their heartbeats, so they are made as the node lifecycle controller would leave them, unreachable, and
nothing of them changes while something is measured. Pods of the benchmark tolerate that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from api.node_inventory import MachineStatus
from dra_driver.hardware.inventory import machine_to_status
from dra_driver.kube.interface import NODE_INVENTORIES, KubeApi, Obj
from dra_driver.kube.reflector import Reflector
from e2e.kit.ghost import create_node, write_status
from tests.devices.recorded import recorded

TOLERATIONS: Sequence[Obj] = ({"operator": "Exists"},)
_UNREACHABLE = "node.kubernetes.io/unreachable"
_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


@dataclass(slots=True)
class Nodes:
    """``names``: those that there are so far."""

    api: KubeApi
    machine: str
    names: list[str] = field(default_factory=list)

    def grow(self, count: int) -> None:
        """Until there are ``count`` of them."""
        machine = machine_to_status(recorded(self.machine))
        for number in range(len(self.names), count):
            self._add(f"gpus-{number:03d}", machine)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """The controller is told that their plugins are registered, whenever it asks."""
        reflector = Reflector(self.api, NODE_INVENTORIES, self._on_change)
        reflector.start()
        try:
            yield
        finally:
            reflector.stop()

    def _add(self, name: str, machine: MachineStatus) -> None:
        create_node(self.api, _node(name), {"machine": machine.to_wire()})
        self.names.append(name)

    def _on_change(self, _old: Obj | None, new: Obj | None) -> None:
        challenge = ((new or {}).get("spec") or {}).get("challenge")
        if new is not None and challenge and (new.get("status") or {}).get("answer") != challenge:
            write_status(self.api, new["metadata"]["name"], {"answer": challenge})


def _node(name: str) -> Obj:
    room = {"cpu": "1000", "memory": "4Ti", "pods": "1000"}
    taints = [{"key": _UNREACHABLE, "effect": effect} for effect in ("NoSchedule", "NoExecute")]
    conditions = [{"type": each, "status": "Unknown", "reason": "NodeStatusUnknown"} for each in _CONDITIONS]
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"taints": taints},
        "status": {"capacity": room, "allocatable": room, "conditions": conditions},
    }
