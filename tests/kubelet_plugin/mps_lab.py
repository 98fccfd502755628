"""A simulated node with an MPS supervisor beside the plugin, both as real processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from api.node_inventory import MachineStatus
from dra_driver.hardware.inventory import machine_from_status
from dra_driver.kube.interface import PODS, RESOURCE_CLAIMS, Obj
from dra_driver.mps.group import GroupStatus
from dra_driver.simulation.hardware import StateFile
from tests.kubelet_plugin.fakes import FAST, eventually
from tests.kubelet_plugin.kinds.mps.claims import mps_for
from tests.kubelet_plugin.mps_supervisor.lab import MACHINE, PATIENCE, Lab
from tests.kubelet_plugin.node_lab import NodeLab


class MpsLab(NodeLab):
    """A node of H100s with a supervisor; ``mps`` looks at what it runs."""

    def __init__(self, root: Path, driver: str | None = None) -> None:
        super().__init__(root, MACHINE, dataclasses.replace(FAST, health_redial=0.2), driver)
        self.mps = Lab(root, driver=driver)

    def close(self) -> None:
        self.mps.close()
        super().close()

    def start_pod(self, name: str, device: str, config: Obj | None = None) -> str:
        """A pod with ``device``, through MPS unless said otherwise; its UID."""
        self.cluster.claim(name, device=device, configs=[config or mps_for(device)])
        return str(self.cluster.pod(name, name)["metadata"]["uid"])

    def start_pod_with_share(self, name: str, device: str, share_id: str) -> str:
        """A pod with a fraction of ``device``; its UID."""
        consumed = {"memory": "10Gi", "compute": "25"}
        self.cluster.claim(name, device=device, shareID=share_id, consumedCapacity=consumed)
        return str(self.cluster.pod(name, name)["metadata"]["uid"])

    def offering_fractions(self, minors: Sequence[int]) -> str:
        """The plugin's argument for a configuration that offers these GPUs in fractions."""
        file = self.root / "fractions.yaml"
        rules = [{"selector": {"minors": list(minors)}, "fractions": {}}]
        document = {
            "apiVersion": "gpu-dra.dev/v1alpha1",
            "kind": "DriverConfiguration",
            "spec": {"sharing": {"rules": rules}},
        }
        file.write_text(yaml.safe_dump(document))
        return f"--config={file}"

    def wait_measured(self, minors: Sequence[int]) -> None:
        """Until it is known how much of these GPUs no fraction can have, so that nothing is measured any more."""

        def look() -> bool:
            machine = machine_from_status(MachineStatus.model_validate(self.status()["machine"]))
            return {gpu.minor for gpu in machine.gpus if gpu.reserves} == set(minors) and not self.mps.client.groups()

        eventually(look, PATIENCE)

    def runs(self, name: str) -> None:
        eventually(lambda: self.cluster.phase(name) == "Running", timeout=PATIENCE)

    def delete_pod(self, name: str) -> None:
        self.api.delete(PODS, name, "default")
        eventually(lambda: self.cluster.gone(name), timeout=PATIENCE)
        self.api.delete(RESOURCE_CLAIMS, name, "default")

    def group(self) -> GroupStatus:
        (status,) = self.mps.client.groups()
        return status

    def mig_devices(self) -> int:
        return sum(len(list(gpu.mig_devices())) for gpu in StateFile(self.state).read().gpus)

    def unhealthy(self) -> dict[str, str]:
        """As the inventory tells them."""
        machine = machine_from_status(MachineStatus.model_validate(self.status()["machine"]))
        return {each.device: each.message for gpu in machine.gpus for each in gpu.mps_unhealthy}

    def health(self, pod: str) -> list[dict[str, Any]]:
        statuses = self.api.get(PODS, pod, "default")["status"].get("containerStatuses") or [{}]
        return [each for entry in statuses[0].get("allocatedResourcesStatus") or () for each in entry["resources"]]
