"""Installs the driver into a cluster with its Helm chart, upgrades it, and takes it away again.

``python -m e2e.install`` does the same for the cluster of ``$KUBECONFIG``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dra_driver.kube.connect import connect
from dra_driver.kube.interface import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, NODE_INVENTORIES, KubeApi, NotFound, Obj
from dra_driver.kube.resources import DAEMON_SETS, DEPLOYMENTS
from e2e.clusters import existing, programs
from e2e.clusters.interface import Cluster, ClusterError
from e2e.clusters.runner import Runner
from e2e.kit.kubectl import find_program
from e2e.kit.pools import driver_slices, wait_published
from e2e.kit.waiting import NotYet, TimedOut, eventually

RELEASE = "gpu-dra"
NAMESPACE = "gpu-dra"
CHART = Path(__file__).resolve().parents[1] / "deploy" / "chart" / "gpu-dra"
CONTROLLER = "gpu-dra-controller"
PLUGIN = "gpu-dra-kubelet-plugin"
SUPERVISOR = "gpu-dra-mps-supervisor"
ROLLOUT_SECONDS = 180.0
PUBLISH_SECONDS = 60.0
# The kubelet deletes slices of a driver that it lost 30 s ago (pkg/kubelet/cm/dra/plugin/dra_plugin_manager.go).
WIPE_SECONDS = 60.0
_KEPT_BY_HELM = ((CUSTOM_RESOURCE_DEFINITIONS, "nodeinventories.gpu-dra.dev"), (NAMESPACES, NAMESPACE))


@dataclass(frozen=True, slots=True)
class Driver:
    """The driver's release in one cluster. Methods raise ClusterError, or TimedOut for what does not come."""

    cluster: Cluster
    api: KubeApi

    def install(self, settings: Sequence[str] = (), files: Sequence[Path] = ()) -> None:
        """Install, or upgrade a release that is there; returns when all devices are published.

        ``settings`` are further ``--set`` arguments, ``files`` values files, which they override.
        """
        self.start_upgrade(settings, files)
        self.wait()

    def start_upgrade(self, settings: Sequence[str] = (), files: Sequence[Path] = ()) -> None:
        """Hand the chart to the API server and return; the pods change meanwhile."""
        eventually(self._check_removed, ROLLOUT_SECONDS)
        chosen = [argument for file in files for argument in ("--values", str(file))]
        chosen += [argument for setting in [*values(self.cluster), *settings] for argument in ("--set", setting)]
        self._helm("upgrade", RELEASE, str(CHART), "--install", "--create-namespace", *chosen, timeout=ROLLOUT_SECONDS)

    def wait(self) -> None:
        """Until the rollout is complete and every node's devices are published."""
        self.wait_rollout()
        wait_published(self.api, self.nodes(), PUBLISH_SECONDS)

    def wait_rollout(self) -> None:
        eventually(lambda: check_rollout(self.api.get(DEPLOYMENTS, CONTROLLER, NAMESPACE)), ROLLOUT_SECONDS)
        for name in (PLUGIN, SUPERVISOR) if self.has_supervisor() else (PLUGIN,):
            eventually(partial(self._check_daemon_set, name), ROLLOUT_SECONDS)

    def has_supervisor(self) -> bool:
        """A release without MPS has none."""
        return any(found["metadata"]["name"] == SUPERVISOR for found in self.api.list(DAEMON_SETS, NAMESPACE).items)

    def nodes(self) -> tuple[str, ...]:
        """Nodes that have devices: all where GPUs are simulated, else those that a plugin speaks for."""
        if self.cluster.simulated_machine:
            return self.cluster.nodes
        found = {entry["metadata"]["name"] for entry in self.api.list(NODE_INVENTORIES).items}
        return tuple(node for node in self.cluster.nodes if node in found)

    def uninstall(self) -> None:
        """Take the release away, with the CRD, which Helm keeps, and the namespace. Not all of it is gone on return."""
        self._helm("uninstall", RELEASE, "--ignore-not-found", timeout=ROLLOUT_SECONDS)
        for resource, name in _KEPT_BY_HELM:
            with contextlib.suppress(NotFound):
                self.api.delete(resource, name)

    def wait_uninstalled(self) -> None:
        """Until nothing is left, the slices that the kubelet deletes included."""
        eventually(self._check_no_slices, WIPE_SECONDS)
        eventually(self._check_removed, ROLLOUT_SECONDS)

    def _check_daemon_set(self, name: str) -> None:
        check_rollout(self.api.get(DAEMON_SETS, name, NAMESPACE))

    def _check_no_slices(self) -> None:
        if left := driver_slices(self.api):
            raise NotYet(f"{len(left)} ResourceSlices of the uninstalled driver are still there")

    def _check_removed(self) -> None:
        """What an installation makes must not be on its way out any more."""
        for resource, name in _KEPT_BY_HELM:
            with contextlib.suppress(NotFound):
                if self.api.get(resource, name)["metadata"].get("deletionTimestamp"):
                    raise NotYet(f"{resource.kind} {name} of an earlier installation is still being deleted")

    def _helm(self, *arguments: str, timeout: float) -> None:
        helm = find_program(programs.HELM, "helm")
        runner = Runner(environment={"KUBECONFIG": str(self.cluster.kubeconfig)})
        runner.run([str(helm), *arguments, "--namespace", NAMESPACE], timeout=timeout)


def values(cluster: Cluster) -> list[str]:
    """The chart's values for that cluster, as ``--set`` takes them."""
    found = []
    if cluster.simulated_machine:
        found += ["simulated.enabled=true", f"simulated.machine={cluster.simulated_machine}"]
    if cluster.image:
        repository, tag = split_image(cluster.image)
        # An image that was loaded into the nodes must not be looked for in a registry.
        policy = "Never" if cluster.abilities else "IfNotPresent"
        found += [f"image.repository={repository}", f"image.tag={tag}", f"image.pullPolicy={policy}"]
    return found


def split_image(image: str) -> tuple[str, str]:
    """``registry:5000/gpu-dra:1`` to its repository and tag. Raises ClusterError where there is no tag."""
    repository, separator, tag = image.rpartition(":")
    if not separator or "/" in tag:
        raise ClusterError(f"image {image} has no tag; give it as repository:tag")
    return repository, tag


def check_rollout(workload: Obj) -> None:
    """Raises NotYet while a Deployment or DaemonSet is not what its spec says."""
    status: dict[str, Any] = workload.get("status") or {}
    name = f"{workload['kind']} {workload['metadata']['name']}"
    if status.get("observedGeneration", 0) < workload["metadata"]["generation"]:
        raise NotYet(f"{name}: its newest spec was not seen yet")
    if workload["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        counts = {"updated": status.get("updatedNumberScheduled", 0), "available": status.get("numberAvailable", 0)}
        extra = status.get("currentNumberScheduled", 0) - wanted
    else:
        wanted = workload["spec"].get("replicas", 1)
        counts = {"updated": status.get("updatedReplicas", 0), "available": status.get("availableReplicas", 0)}
        extra = status.get("replicas", 0) - wanted
    if wanted == 0 or extra > 0 or any(count != wanted for count in counts.values()):
        said = ", ".join(f"{count} {word}" for word, count in counts.items())
        raise NotYet(f"{name}: {said} of {wanted} wanted" + (f", {extra} old" if extra > 0 else ""))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m e2e.install", description="Installs the driver with its Helm chart."
    )
    parser.add_argument("action", choices=["install", "uninstall"])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a value of the chart")
    given = parser.parse_args(arguments)
    try:
        with existing.session() as cluster:
            driver = Driver(cluster, connect(str(cluster.kubeconfig)))
            if given.action == "install":
                driver.install(given.set)
            else:
                driver.uninstall()
                driver.wait_uninstalled()
            print(json.dumps({"release": RELEASE, "nodes": driver.nodes() if given.action == "install" else []}))
    except (ClusterError, TimedOut) as error:
        print(f"e2e.install: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
