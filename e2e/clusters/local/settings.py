"""Names, addresses and files of one local cluster: pure values, everything else is made from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from e2e.clusters.programs import cache_folder

CONTROL = "control"
CONTROL_ADDRESS = "10.250.0.1"
SERVICE_RANGE = "10.96.0.0/16"
SERVICE_ADDRESS = "10.96.0.1"
API_PORT = 6443
PAUSE_IMAGE = "localhost/pause:1"

# Off by default on that minor, and needed for a part of this driver; the same list goes to every component. An unknown
# gate ends a component, so the list is per minor (pkg/features/kube_features.go of each).
FEATURE_GATES: Mapping[str, tuple[str, ...]] = {
    "1.34": (
        "DRAPartitionableDevices",
        "DRADeviceTaints",
        "DRAConsumableCapacity",
        "DRAExtendedResource",
        "DRADeviceBindingConditions",
        "ResourceHealthStatus",
    ),
}
# DeviceTaintRule is v1alpha3 before 1.36, v1 in 1.37.
RUNTIME_CONFIG = "resource.k8s.io/v1alpha3=true"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """One node: ``number`` counts from 0."""

    number: int

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def address(self) -> str:
        return f"10.250.0.{10 + self.number}"

    @property
    def pod_range(self) -> str:
        return f"10.244.{self.number}.0/24"


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What a cluster was brought up with. ``kubernetes`` is a minor, ``machine`` what the driver simulates.

    ``without``: feature gates that are switched off.
    """

    name: str = "gpu-dra"
    kubernetes: str = "1.37"
    nodes: int = 1
    machine: str = "a100-sxm4-40gb"
    without: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return cache_folder() / "clusters" / self.name

    @property
    def kubeconfig(self) -> Path:
        """For people and tests on this machine, through the forwarded port."""
        return self.folder / "kubeconfig"

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def node_settings(self) -> tuple[NodeSettings, ...]:
        return tuple(NodeSettings(number) for number in range(self.nodes))

    @property
    def machines(self) -> tuple[str, ...]:
        return (CONTROL, *(node.name for node in self.node_settings))

    def machine_folder(self, machine: str) -> Path:
        return self.folder / machine

    def kubeconfig_of(self, component: str) -> Path:
        """For a component inside the cluster."""
        return self.pki / f"{component}.kubeconfig"

    @property
    def feature_gates(self) -> str:
        """``A=true,B=false``; empty when this minor needs none."""
        needed = dict.fromkeys(FEATURE_GATES.get(self.kubernetes, ()), "true")
        return ",".join(f"{gate}={value}" for gate, value in {**needed, **dict.fromkeys(self.without, "false")}.items())

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "settings.json").write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, name: str) -> ClusterSettings | None:
        """The settings of the cluster ``name``; None when there is no trace of one."""
        path = cls(name).folder / "settings.json"
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        return cls(**{**found, "without": tuple(found.get("without", ()))})
