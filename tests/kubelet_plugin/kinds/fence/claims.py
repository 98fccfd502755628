"""Claims for fractions, and a node that offers its GPUs so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from api.fractions import API_VERSION, SharingBackend
from dra_driver.devices.sharing import Fractions, SharingPolicy, SharingRule
from dra_driver.errors import DriverError
from dra_driver.hardware.model import Machine
from dra_driver.kube.interface import Obj
from kubelet_plugin.kinds.fractions import NodeFences
from tests.cdi.driver_root import VERSION
from tests.devices.builders import gpu
from tests.kubelet_plugin.prepare.node import TestNode, opaque, ref, result

MIB, GIB = 2**20, 2**30
SHARES = [f"5afb1ec1-3e70-424e-9ff3-40222{number:07x}" for number in range(8)]


class Offered:
    """A ``SharingInForce``: all GPUs in fractions, and all MIG devices of profile 1g.10gb."""

    def __init__(self) -> None:
        sharing = Fractions(256 * MIB, 1)
        self.policy = SharingPolicy((SharingRule(sharing), SharingRule(sharing, mig_profile="1g.10gb")))

    def current(self) -> SharingPolicy:
        return self.policy


class Has(NodeFences):
    """A node with just these, of whose devices 600 MiB are nobody's."""

    def __init__(self, *backends: SharingBackend) -> None:
        self._backends = backends

    def backends(self) -> tuple[SharingBackend, ...]:
        return self._backends

    def reserve(self, device: str) -> int | None:
        return 600 * MIB


def node_with(folder: Path, *backends: SharingBackend, on: Machine | None = None, **more: Any) -> TestNode:
    node = TestNode(folder, on=on or Machine(VERSION, 12040, tuple(gpu(n, mig=None) for n in range(4))), **more)
    node.sharing = Offered()
    node.fences = Has(*backends)
    node.gates = node.gates | {"MPSSupport", "TimeSlicingSettings"}
    return node


def fraction(
    number: int, memory: str = "10Gi", compute: str = "25", device: str = "gpu-0", request: str = "gpu"
) -> Obj:
    consumed = {"memory": memory, "compute": compute}
    return result(device, request, shareID=SHARES[number], consumedCapacity=consumed)


def fraction_config(**fields: Any) -> Obj:
    return opaque({"apiVersion": API_VERSION, "kind": "FractionConfig", **fields})


def prepared(node: TestNode, uid: str) -> DriverError | list[str]:
    engine = node.engine()
    try:
        answer = engine.prepare([ref(uid)], timeout=10)[uid]
        return answer if isinstance(answer, DriverError) else [device.device_name for device in answer]
    finally:
        engine.stop()


def unprepared(node: TestNode, uid: str) -> DriverError | None:
    engine = node.engine()
    try:
        return engine.unprepare([ref(uid)], timeout=10)[uid]
    finally:
        engine.stop()


def variables(node: TestNode, uid: str) -> dict[str, str]:
    """What containers of the claim get of MPS."""
    spec = node.cdi.read(uid)
    assert spec is not None
    found = (each.partition("=") for device in spec.devices for each in device.edits.env)
    return {name: value for name, _equals, value in found if name.startswith("CUDA_MPS")}
