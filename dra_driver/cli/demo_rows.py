"""One row of the demo's table per pod: where it is, what it holds, what its containers see. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dra_driver.allocator.parse import allocation_results
from dra_driver.cli.expectations import Expectation, phase, waiting_message
from dra_driver.kube.interface import Obj
from dra_driver.simulation.runtime.runtime import ContainerView

_CONTROL_NODES = ("/dev/nvidiactl", "/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")


@dataclass(frozen=True, slots=True)
class PodRow:
    pod: str  # namespace/name
    node: str
    phase: str
    expected: str
    reached: bool
    missed: bool  # it cannot get there any more
    devices: tuple[str, ...]  # pool/device
    sees: tuple[str, ...]  # one line per container
    message: str  # why it waits

    @property
    def verdict(self) -> str:
        return "ok" if self.reached else "missed" if self.missed else "..."


def pod_row(
    pod: Obj,
    expectation: Expectation,
    claims: Mapping[tuple[str, str], Obj],
    views: Sequence[ContainerView],
    failure: str = "",
) -> PodRow:
    """``views`` are those of this pod's containers; ``failure``: why its claims could not be prepared."""
    metadata = pod["metadata"]
    reached = expectation.is_met(pod, failure)
    return PodRow(
        pod=f"{metadata['namespace']}/{metadata['name']}",
        node=pod["spec"].get("nodeName") or "-",
        phase=phase(pod),
        expected=str(expectation),
        reached=reached,
        missed=not reached and expectation.is_missed(pod),
        devices=_devices(pod, claims),
        sees=tuple(describe_view(view, _own_variables(pod, view.container)) for view in views),
        message=waiting_message(pod) or (failure if phase(pod) == "Pending" else ""),
    )


def lost_row(namespace: str, name: str, expectation: Expectation) -> PodRow:
    """A pod that somebody deleted meanwhile."""
    return PodRow(f"{namespace}/{name}", "-", "gone", str(expectation), False, True, (), (), "the pod was deleted")


def claim_names(pod: Obj) -> list[str]:
    """The claims of a pod that exist, the special one for extended resources last."""
    status = pod.get("status") or {}
    generated = {entry["name"]: entry.get("resourceClaimName") for entry in status.get("resourceClaimStatuses") or ()}
    names = [
        entry.get("resourceClaimName") or generated.get(entry["name"])
        for entry in pod["spec"].get("resourceClaims") or ()
    ]
    special = (status.get("extendedResourceClaimStatus") or {}).get("resourceClaimName")
    return [name for name in [*names, special] if name]


def allocated_devices(claim: Obj) -> list[str]:
    return [f"{result['pool']}/{result['device']}" for result in allocation_results(claim)]


def describe_view(view: ContainerView, own_variables: frozenset[str] = frozenset()) -> str:
    """``main: /dev/nvidia0 + 4 control nodes, 18 mounts, NVIDIA_VISIBLE_DEVICES=void``."""
    paths = [node.path for node in view.device_nodes]
    gpus = [path for path in paths if path not in _CONTROL_NODES]
    control = len(paths) - len(gpus)
    parts = [_shortened(gpus) or "no GPU"]
    if control:
        parts[0] += f" + {control} control node{'s' if control > 1 else ''}"
    if view.mounts:
        parts.append(f"{len(view.mounts)} mounts")
    parts += [f"{name}={value}" for name, value in view.env.items() if name not in own_variables]
    return f"{view.container}: {', '.join(parts)}"


def _shortened(paths: Sequence[str]) -> str:
    """``/dev/nvidia0 /dev/nvidia1`` as ``/dev/nvidia{0,1}``; other paths as they are."""
    minors = [path.removeprefix("/dev/nvidia") for path in paths if path.removeprefix("/dev/nvidia").isdigit()]
    others = [path for path in paths if not path.removeprefix("/dev/nvidia").isdigit()]
    if len(minors) > 1:
        minors = ["{" + ",".join(minors) + "}"]
    return " ".join([*(f"/dev/nvidia{minor}" for minor in minors), *others])


def _own_variables(pod: Obj, container: str) -> frozenset[str]:
    containers = [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]
    found: Obj = next((entry for entry in containers if entry["name"] == container), {})
    return frozenset(entry["name"] for entry in found.get("env") or ())


def _devices(pod: Obj, claims: Mapping[tuple[str, str], Obj]) -> tuple[str, ...]:
    namespace = pod["metadata"]["namespace"]
    found = (claims.get((namespace, name)) for name in claim_names(pod))
    return tuple(device for claim in found if claim for device in allocated_devices(claim))
