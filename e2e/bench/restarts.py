"""What restarts cost: how soon wiped slices are back, what is written for nothing, how soon a plugin serves."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import datetime

from dra_driver.kube.interface import PODS, RESOURCE_SLICES, EventType, KubeApi
from e2e.clusters.interface import Cluster
from e2e.install import NAMESPACE, PLUGIN
from e2e.kit.driver_pods import PLUGIN_CONTAINER, DriverPods
from e2e.kit.kubectl import Kubectl
from e2e.kit.pools import driver_slices, publication_problem, versions
from e2e.kit.recording import recording
from e2e.kit.space import is_ready
from e2e.kit.waiting import NotYet, eventually

_PATIENCE = 120.0
_QUIET_SECONDS = 3.0  # a second wipe, if one comes, comes sooner
_REGISTERED = re.compile(r"^(\S+) .*the kubelet registered this plugin", re.MULTILINE)
# When the container's process was started, in seconds of the clock that its log lines have (proc(5), starttime).
_STARTED = """
import os, time
ticks = int(open("/proc/1/stat").read().rpartition(")")[2].split()[19])
up = float(open("/proc/uptime").read().split()[0])
print(time.time() - up + ticks / os.sysconf("SC_CLK_TCK"))
"""


def kubelet_restarts(api: KubeApi, cluster: Cluster, node: str, count: int) -> list[float]:
    """Seconds from the restart's command to the node's devices being published after the last wipe that followed."""
    return [_kubelet_restart(api, cluster, node) for _ in range(count)]


def plugin_restarts(api: KubeApi, kubectl: Kubectl, node: str, count: int) -> tuple[list[float], list[float]]:
    """Slice writes of each restart, and seconds from the start of the new process to its registration."""
    samples = [_plugin_restart(api, kubectl, node) for _ in range(count)]
    return [writes for writes, _ in samples], [seconds for _, seconds in samples]


def _kubelet_restart(api: KubeApi, cluster: Cluster, node: str) -> float:
    with recording(api, RESOURCE_SLICES) as slices:
        began = time.monotonic()
        cluster.restart_kubelet(node)
        eventually(lambda: _check_wiped(slices.of(EventType.DELETED)), _PATIENCE, poll=0.01)
        eventually(lambda: _check_published(api, node), _PATIENCE, poll=0.01)
        back, wipes = time.monotonic(), len(slices.of(EventType.DELETED))
        while time.monotonic() < back + _QUIET_SECONDS:
            if len(slices.of(EventType.DELETED)) > wipes:
                eventually(lambda: _check_published(api, node), _PATIENCE, poll=0.01)
                back, wipes = time.monotonic(), len(slices.of(EventType.DELETED))
            time.sleep(0.05)
    return back - began


def _plugin_restart(api: KubeApi, kubectl: Kubectl, node: str) -> tuple[float, float]:
    pods = DriverPods(api, kubectl)
    before, old = versions(driver_slices(api)), pods.plugin(node)["metadata"]["name"]
    with recording(api, RESOURCE_SLICES) as slices:
        api.delete(PODS, old, NAMESPACE)
        new = eventually(lambda: _check_replaced(pods, node, old), _PATIENCE)
        time.sleep(_QUIET_SECONDS)
    writes = len(slices.describe())
    if versions(driver_slices(api)) != before:
        writes = max(writes, 1)
    started = float(kubectl.execute(NAMESPACE, new, PLUGIN_CONTAINER, ["python3", "-c", _STARTED]))
    registered = eventually(lambda: registered_at(_log(kubectl, new)), _PATIENCE)
    return float(writes), registered - started


def rolling_update_writes(api: KubeApi, kubectl: Kubectl) -> float:
    """Slice writes while the DaemonSet replaces its pods, old and new side by side."""
    with recording(api, RESOURCE_SLICES) as slices:
        kubectl.run("-n", NAMESPACE, "rollout", "restart", f"daemonset/{PLUGIN}")
        kubectl.run("-n", NAMESPACE, "rollout", "status", f"daemonset/{PLUGIN}", "--timeout=120s", timeout=130)
        time.sleep(_QUIET_SECONDS)
    return float(len(slices.describe()))


def registered_at(log: str) -> float:
    """The moment of the kubelet's first notification, seconds since the epoch. Raises NotYet."""
    found = _REGISTERED.search(log)
    if found is None:
        raise NotYet("the plugin's log does not tell of its registration")
    return datetime.fromisoformat(found[1]).timestamp()


def _log(kubectl: Kubectl, pod: str) -> str:
    return kubectl.run("-n", NAMESPACE, "logs", pod, "-c", PLUGIN_CONTAINER)


def _check_wiped(deleted: Sequence[str]) -> None:
    if not deleted:
        raise NotYet("the kubelet has not deleted the node's slices")


def _check_published(api: KubeApi, node: str) -> None:
    if problem := publication_problem(api, node):
        raise NotYet(problem)


def _check_replaced(pods: DriverPods, node: str, old: str) -> str:
    new = pods.plugin(node)
    if new["metadata"]["name"] == old or not is_ready(new):
        raise NotYet(f"no new plugin pod on {node} is ready")
    return str(new["metadata"]["name"])
