"""Resources of device plugins, as a node's kubelet keeps them, and how a node forgets them. Needs RUN_ON_NODE."""

from __future__ import annotations

import json
from collections.abc import Mapping

from dra_driver.kube.interface import NODES, KubeApi
from e2e.clusters.interface import Cluster
from e2e.kit.pools import driver_slices, versions, wait_published
from e2e.kit.waiting import NotYet, eventually

# pkg/kubelet/cm/devicemanager/manager.go
CHECKPOINT = "/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint"
_SECONDS = 60.0


def read_registered(cluster: Cluster, node: str) -> dict[str, set[str]]:
    """Ids of the healthy devices of every resource that ever was registered."""
    return parse(cluster.run_on_node(node, ["sh", "-c", f'cat "{CHECKPOINT}" 2>/dev/null || true']))


def parse(checkpoint: str) -> dict[str, set[str]]:
    """``checkpoint``: the kubelet's own; empty when there is none."""
    if not checkpoint.strip():
        return {}
    registered = json.loads(checkpoint)["Data"]["RegisteredDevices"] or {}
    return {resource: set(ids or ()) for resource, ids in registered.items()}


def allocatable(api: KubeApi, node: str, domain: str) -> dict[str, int]:
    """What the Node offers pods of the resources of ``domain``."""
    return _of(domain, api.get(NODES, node)["status"]["allocatable"])


def forget(cluster: Cluster, api: KubeApi, node: str, domain: str) -> None:
    """No resource of ``domain`` is on the Node any more; no pod may have one.

    A kubelet keeps them for minutes after their plugin, and the Node for ever, with 0 of each. It knows them by its
    checkpoint: without that it starts anew. Its start wipes the slices of the node, which come back.
    """
    if not _of(domain, api.get(NODES, node)["status"]["capacity"]):
        return
    old = versions(driver_slices(api, node))
    cluster.run_on_node(node, ["rm", "-f", CHECKPOINT])
    cluster.restart_kubelet(node)

    def look() -> None:
        names = dict.fromkeys(_of(domain, api.get(NODES, node)["status"]["capacity"]))
        if names:
            api.patch(NODES, node, {"status": {"capacity": names, "allocatable": names}}, subresource="status")
            raise NotYet(f"Node {node} still has {', '.join(names)}")
        if left := old.keys() & versions(driver_slices(api, node)).keys():
            raise NotYet(f"{len(left)} slices of {node} are from before the kubelet's start")

    eventually(look, _SECONDS)
    wait_published(api, [node], _SECONDS)


def _of(domain: str, amounts: Mapping[str, str]) -> dict[str, int]:
    return {name: int(amount) for name, amount in amounts.items() if name.startswith(f"{domain}/")}
