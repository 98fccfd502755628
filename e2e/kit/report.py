"""What a person wants to read when a test has failed: the namespace, the driver's logs, what it published. Short.

Every part is made by itself: one that cannot be made says why, and the others are still there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dra_driver.kube.interface import EVENTS, NODE_INVENTORIES, ApiError, KubeApi, Obj
from e2e.clusters.interface import ClusterError
from e2e.install import NAMESPACE
from e2e.kit.driver_pods import CONTROLLER_LABELS, PLUGIN_LABELS, SUPERVISOR_LABELS
from e2e.kit.expected import results_of
from e2e.kit.kubectl import Kubectl, KubectlError
from e2e.kit.pools import conditions, driver_slices
from e2e.kit.space import Space, is_ready, state

_DESCRIBED = 3
_EVENTS = 40
_LOG_LINES = 200


def failure_report(api: KubeApi, kubectl: Kubectl, spaces: Sequence[Space], since: str) -> str:
    """``since``: when the test began, for the logs (RFC 3339)."""
    parts: list[tuple[str, Callable[[], Sequence[str]]]] = []
    for space in spaces:
        parts += _space_parts(api, space)
    parts += [
        ("NodeInventories", lambda: [inventory_line(found) for found in api.list(NODE_INVENTORIES).items]),
        ("ResourceSlices", lambda: [slice_line(found) for found in driver_slices(api)]),
        ("Controller's log", lambda: _logs(kubectl, CONTROLLER_LABELS, since)),
        ("Plugins' log", lambda: _logs(kubectl, PLUGIN_LABELS, since)),
        ("MPS supervisors' log", lambda: _logs(kubectl, SUPERVISOR_LABELS, since)),
    ]
    lines: list[str] = []
    for title, make in parts:
        lines.append(f"--- {title}")
        try:
            lines += make() or ["(none)"]
        except (ApiError, KubectlError, ClusterError, KeyError) as error:
            lines.append(f"(not to be had: {type(error).__name__}: {error})")
    return "\n".join(lines)


def _space_parts(api: KubeApi, space: Space) -> list[tuple[str, Callable[[], Sequence[str]]]]:
    return [
        (f"Events of {space.namespace}", lambda: event_lines(api.list(EVENTS, space.namespace).items)),
        ("Pods", lambda: [f"{name}: {state(pod)}" for name, pod in space.pods().items()]),
        ("Claims", lambda: [claim_line(claim) for claim in space.claims().values()]),
        ("Descriptions", lambda: _descriptions(space)),
    ]


def event_lines(events: Sequence[Obj]) -> list[str]:
    """Oldest first: ``12:31:07 Warning FailedScheduling pod/one x3: 0/1 nodes are available``."""
    lines = []
    for event in sorted(events, key=_time)[-_EVENTS:]:
        subject = event.get("involvedObject") or {}
        count = event.get("count") or (event.get("series") or {}).get("count") or 1
        times = f" x{count}" if count > 1 else ""
        clock = _time(event)[11:19] or "?"
        lines.append(
            f"{clock} {event.get('type', '')} {event.get('reason', '')}"
            f" {str(subject.get('kind', '')).lower()}/{subject.get('name', '')}{times}: {event.get('message', '')}"
        )
    return lines


def claim_line(claim: Obj) -> str:
    """``one: node-0/gpu-1 (gpu), reserved for one``."""
    devices = ", ".join(f"{result.pool}/{result.device} ({result.request})" for result in results_of(claim))
    users = ", ".join(entry["name"] for entry in (claim.get("status") or {}).get("reservedFor") or ())
    return f"{claim['metadata']['name']}: {devices or 'not allocated'}, reserved for {users or 'nobody'}"


def inventory_line(inventory: Obj) -> str:
    """What the plugin says of itself and of its node, without the machine's tables."""
    status: dict[str, Any] = inventory.get("status") or {}
    registration = status.get("registration") or {}
    machine = status.get("machine") or {}
    return (
        f"{inventory['metadata']['name']}: {len(machine.get('gpus') or ())} GPUs, "
        f"registered {registration.get('registered')} by {registration.get('pluginInstance')} "
        f"({registration.get('registrations')} times), challenge {(inventory.get('spec') or {}).get('challenge')}, "
        f"answer {status.get('answer')}, {conditions(inventory)}"
    )


def slice_line(resource_slice: Obj) -> str:
    spec = resource_slice["spec"]
    pool = spec["pool"]
    devices = []
    for device in spec.get("devices") or ():
        taints = ",".join(f"{taint['key']}:{taint['effect']}" for taint in device.get("taints") or ())
        devices.append(f"{device['name']}[{taints}]" if taints else device["name"])
    return (
        f"{resource_slice['metadata']['name']}: pool {pool['name']} generation {pool['generation']}, "
        f"one of {pool['resourceSliceCount']}: {' '.join(devices) or 'no devices'}"
    )


def _descriptions(space: Space) -> list[str]:
    """Of those that are not Ready, or of some when all are. Events are left out, they stand above."""
    pods = space.pods()
    chosen = [name for name, pod in pods.items() if not is_ready(pod)] or list(pods)
    lines: list[str] = []
    for name in chosen[:_DESCRIBED]:
        lines += space.kubectl.run("-n", space.namespace, "describe", "pod", name, "--show-events=false").splitlines()
    if len(chosen) > _DESCRIBED:
        lines.append(f"({len(chosen) - _DESCRIBED} more pods are not described)")
    return lines


def _logs(kubectl: Kubectl, labels: str, since: str) -> list[str]:
    return kubectl.run(
        "-n", NAMESPACE, "logs", "-l", labels, "--prefix", "--all-containers",
        f"--tail={_LOG_LINES}", f"--since-time={since}", "--max-log-requests=20",
    ).splitlines()  # fmt: skip


def _time(event: Obj) -> str:
    found = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    return str(found or "")
