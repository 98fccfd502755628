"""What the fake kubelet writes into the status of its node and pods. Pure functions over raw objects."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from dra_driver.kube.interface import Obj

OWN_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")
RUN_ANNOTATION = "embedded.gpu-dra.dev/containers"
"""Pod annotation: "exit" lets the containers end by themselves with code 0, "run" keeps them running."""


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def containers_exit(pod: Obj) -> bool:
    """Whether the pod's containers end by themselves. No command runs, so this is a rule: they do unless restarted."""
    wish = (pod["metadata"].get("annotations") or {}).get(RUN_ANNOTATION)
    if wish in ("exit", "run"):
        return bool(wish == "exit")
    return bool(pod["spec"].get("restartPolicy", "Always") != "Always")


def container_env(container: Obj) -> dict[str, str]:
    """Variables with a literal value; references need objects that are not looked up here."""
    return {entry["name"]: entry["value"] for entry in container.get("env") or () if "value" in entry}


def waiting(pod: Obj, reason: str, message: str = "") -> Obj:
    state: Obj = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
    return _status(pod, "Pending", state, ready=())


def running(pod: Obj, started: str) -> Obj:
    return _status(pod, "Running", {"running": {"startedAt": started}}, ready=OWN_CONDITIONS)


def running_since(pod: Obj) -> str:
    """When the pod's containers started, as its status says; empty when it does not."""
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        started: str = container.get("state", {}).get("running", {}).get("startedAt", "")
        return started
    return ""


def with_health(new_status: Obj, health: Mapping[str, list[Obj]]) -> Obj:
    """``new_status`` with the health of each container's devices (KEP 4680)."""
    containers = [
        {**container, "allocatedResourcesStatus": health[container["name"]]}
        if container["name"] in health
        else container
        for container in new_status["containerStatuses"]
    ]
    return {**new_status, "containerStatuses": containers}


def succeeded(pod: Obj, started: str) -> Obj:
    ended = {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": now()}
    return _status(pod, "Succeeded", {"terminated": ended}, ready=("Initialized",), reason="PodCompleted")


def node(name: str) -> Obj:
    """A Node as a kubelet registers it."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "spec": {},
    }


def node_status() -> Obj:
    when = now()
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "kubelet is posting ready status",
        "lastHeartbeatTime": when,
        "lastTransitionTime": when,
    }
    resources = {"cpu": "128", "memory": "2048Gi", "pods": "110"}
    return {"conditions": [ready], "capacity": resources, "allocatable": resources}


def is_ready(node_object: Obj) -> bool:
    conditions = (node_object.get("status") or {}).get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _status(pod: Obj, phase: str, state: Obj, *, ready: Collection[str], reason: str = "") -> Obj:
    old = pod.get("status") or {}
    others = [condition for condition in old.get("conditions") or () if condition["type"] not in OWN_CONDITIONS]
    ours = [_condition(old, kind, kind in ready, reason) for kind in OWN_CONDITIONS]
    uid = pod["metadata"]["uid"]
    containers = [
        {
            "name": container["name"],
            "image": container.get("image", ""),
            "imageID": "",
            "containerID": "" if "waiting" in state else f"embedded://{uid}/{container['name']}",
            "restartCount": 0,
            "ready": "running" in state,
            "started": "running" in state,
            "state": state,
        }
        for container in pod["spec"]["containers"]
    ]
    return {
        "phase": phase,
        "startTime": old.get("startTime") or now(),
        "conditions": others + ours,
        "containerStatuses": containers,
    }


def _condition(old: Obj, kind: str, met: bool, reason: str) -> Obj:
    status = "True" if met else "False"
    before: Obj = next((entry for entry in old.get("conditions") or () if entry["type"] == kind), {})
    changed = now() if before.get("status") != status else before.get("lastTransitionTime") or now()
    condition = {"type": kind, "status": status, "lastTransitionTime": changed}
    return {**condition, "reason": reason} if reason and not met else condition
