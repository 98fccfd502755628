"""The way back: deletes what the demo applied, and looks whether anything is left anywhere it could be left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from dra_driver.allocator.allocate import Snapshot, devices_in_use
from dra_driver.cli.manifests import Manifest
from dra_driver.kube.interface import PODS, RESOURCE_CLAIMS, RESOURCE_SLICES, Conflict, KubeApi, NotFound
from dra_driver.kube.lists import list_all
from dra_driver.simulation.cluster import EmbeddedCluster
from dra_driver.simulation.hardware import StateFile
from kubelet_plugin.prepare.checkpoint import STATE_FOLDER, read_folder

_POLL_SECONDS = 0.05


def delete_all(api: KubeApi, created: Sequence[Manifest]) -> None:
    """In reverse order: pods first, namespaces last."""
    for manifest in reversed(created):
        try:
            api.delete(manifest.resource, manifest.name, manifest.namespace)
        except (NotFound, Conflict):
            continue  # gone with its namespace, or being deleted already


def delete_everything(api: KubeApi) -> None:
    """All pods and claims, whoever made them: pods first, so that their claims can go."""
    for resource in (PODS, RESOURCE_CLAIMS):
        for obj in list_all(api, resource):
            try:
                api.delete(resource, obj["metadata"]["name"], obj["metadata"]["namespace"])
            except (NotFound, Conflict):
                continue


def count_published(api: KubeApi) -> int:
    pools = Snapshot.from_objects(list_all(api, RESOURCE_SLICES), (), ()).pools
    return sum(len(pool.devices) for pool in pools if not pool.problem)


def wait_until_clean(cluster: EmbeddedCluster, devices: int | None, timeout: float) -> list[str]:
    """What is still left after ``timeout`` seconds, as sentences; empty when all is as before."""
    deadline = time.monotonic() + timeout
    while leftovers := find_leftovers(cluster, devices):
        cluster.check()
        if time.monotonic() > deadline:
            return leftovers
        time.sleep(_POLL_SECONDS)
    return []


def find_leftovers(cluster: EmbeddedCluster, devices: int | None) -> list[str]:
    """``devices``: how many were published before the demo's pods; None where that may have changed since."""
    found = [f"pod {_name(pod)}" for pod in list_all(cluster.api, PODS)]
    claims = list_all(cluster.api, RESOURCE_CLAIMS)
    found += [f"claim {_name(claim)}" for claim in claims]
    for device, holdings in devices_in_use(claims).items():
        found += [f"device {device} in use by claim {holding.claim}" for holding in holdings]
    published = count_published(cluster.api)
    if devices is not None and published != devices:
        found.append(f"{published} devices are published, {devices} were before")
    for node in cluster.nodes:
        found += [f"CDI file {path.name} on {node.name}" for path in sorted(node.cdi.glob("*claim*"))]
        recorded = _recorded(node.plugin_folder(cluster.driver) / STATE_FOLDER)
        found += [f"claim {uid} in the plugin's checkpoint on {node.name}" for uid in recorded]
        for index, gpu in enumerate(StateFile(node.state).read().gpus):
            found += [f"{what} on GPU {index} of {node.name}" for what in gpu.set_by_somebody()]
    return found


def _recorded(folder: Path) -> list[str]:
    reading = read_folder(folder)
    return [*reading.entries, *(f"(unreadable: {problem})" for problem in reading.problems)]


def _name(obj: dict[str, dict[str, str]]) -> str:
    return f"{obj['metadata'].get('namespace')}/{obj['metadata']['name']}"
